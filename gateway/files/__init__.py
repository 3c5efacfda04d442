"""Files that people upload to train on, and that training leaves: OpenAI's Files API behind the HTTP edge.

`multipart` takes an upload apart as it arrives, `blobs` keeps bytes by their digest, `files` knows whose file
is which. Called by `gateway.api` and `gateway.app`; calls `gateway.db` and the disk.
"""
