"""The HTTP edges: OpenAI's surface (`openai`, pure ASGI) and the control plane (`admin`, FastAPI).

An edge parses, calls one room, and answers; every failure becomes OpenAI's error body in `errors`. Called by
`gateway.app` alone; may call any room of the gateway and `adapters`.
"""
