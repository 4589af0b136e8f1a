"""Makes keys.json and tokens.tsv anew: a key set, and a token of each algorithm that its keys are for.

Needs the package `cryptography`, whose code the broker shares nothing with. The private keys are not kept.
"""

import base64, hashlib, hmac, json, secrets
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

CLAIMS = {
    "sub": "ann", "iss": "https://issuer.example", "aud": ["other", "broker"], "groups": ["plant", "night"],
    "client_id": "sensor-1", "iat": 1700000000, "nbf": 1700000000, "exp": 4102444800,
}
HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}


def b64(data):
    if isinstance(data, int):
        data = data.to_bytes((data.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def ecdsa(key, size, digest):
    def sign(data):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest())))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return sign


def ec_key(kid, curve, size, key):
    numbers = key.public_key().public_numbers()
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    return {"kty": "EC", "crv": curve, "kid": kid, "x": b64(x), "y": b64(y)}


secret = secrets.token_bytes(64)
big = rsa.generate_private_key(public_exponent=65537, key_size=2048)
p256, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
ed = ed25519.Ed25519PrivateKey.generate()
numbers = big.public_key().public_numbers()
keys = [
    {"kty": "oct", "kid": "secret", "k": b64(secret)},
    {"kty": "RSA", "kid": "rsa", "use": "sig", "n": b64(numbers.n), "e": b64(numbers.e)},
    ec_key("p256", "P-256", 32, p256),
    ec_key("p384", "P-384", 48, p384),
    {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": b64(ed.public_key().public_bytes_raw())},
]
signers = {"ES256": ("p256", ecdsa(p256, 32, hashes.SHA256)), "ES384": ("p384", ecdsa(p384, 48, hashes.SHA384)),
           "EdDSA": ("ed", ed.sign)}
for bits, digest in HASHES.items():
    name = "sha" + bits
    pss = padding.PSS(padding.MGF1(digest()), digest.digest_size)
    signers["HS" + bits] = ("secret", lambda data, name=name: hmac.new(secret, data, name).digest())
    signers["RS" + bits] = ("rsa", lambda data, digest=digest: big.sign(data, padding.PKCS1v15(), digest()))
    signers["PS" + bits] = ("rsa", lambda data, pss=pss, digest=digest: big.sign(data, pss, digest()))

with open("keys.json", "w") as file:
    json.dump({"keys": keys}, file, indent=1)
    file.write("\n")
with open("tokens.tsv", "w") as file:
    for algorithm, (kid, sign) in sorted(signers.items()):
        header = {"typ": "JWT", "alg": algorithm, "kid": kid}
        signed = ".".join(b64(json.dumps(part).encode()) for part in (header, CLAIMS))
        file.write(f"{algorithm}\t{signed}.{b64(sign(signed.encode()))}\n")
