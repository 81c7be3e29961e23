"""A real SMTP server for the tests of mail: prints its port, then each mail that it took as one line of JSON.

    smtp.py plain | starttls CERT KEY | tls CERT KEY
"""

import asyncio
import email
import email.policy
import json
import pathlib
import ssl
import sys

for folder in pathlib.Path(__file__).resolve().parents:
    if (folder / ".tools" / "smtp" / "aiosmtpd").is_dir():
        sys.path.insert(0, str(folder / ".tools" / "smtp"))

try:
    from aiosmtpd.smtp import SMTP, AuthResult
except ImportError:
    print("missing", flush=True)
    sys.exit(0)


class Handler:
    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        body = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
        took = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": {name: str(value) for name, value in message.items() if name != "Content-Type"},
            "kind": message.get_content_type(),
            "body": body,
            "encrypted": session.ssl is not None or MODE == "tls",
            "login": session.auth_data.login.decode() if session.auth_data else None,
            "hello": session.host_name,
        }
        print(json.dumps(took), flush=True)
        return "250 2.0.0 taken as TEST"


def authenticate(server, session, envelope, mechanism, data):
    good = data.login == b"vouch" and data.password == b"p4ssword"
    return AuthResult(success=good, auth_data=data) if good else AuthResult(success=False, handled=False)


MODE = sys.argv[1]
options = {"authenticator": authenticate, "auth_require_tls": MODE == "starttls"}
around = None
if MODE != "plain":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    if MODE == "tls":
        around = context
    else:
        options |= {"tls_context": context, "require_starttls": True}


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler(), **options), "127.0.0.1", 0, ssl=around)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
