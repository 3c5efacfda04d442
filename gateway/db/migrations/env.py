"""What Alembic runs to run migrations; `runner` gives it the connection, inside its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
