"""What secrets look like: the names that they stand under, and their shapes."""

from __future__ import annotations

import re
from itertools import pairwise


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words of a name that say that its value is secret, wherever they stand, and those that say so at its end only.
_ANYWHERE = _words("""
password passwords passwd passphrase passcode secret secrets token tokens apikey apikeys credential credentials
authorization bearer
""")
_LAST = _words("""
pwd pw pass auth cookie cookies otp totp mfa psk dsn sas sig jwt webhook apitoken authtoken pin
""")
# Words that make the name of a number or a place of it: `max_tokens`, `pad_token_id`, `token_file`, `key_dim`.
_NOT = _words("""
max min num n count per pad eos bos sep unk cls mask special additional id ids dim dims size len length type types
tokenizer tokenized pattern patterns file files path dir folder name names ring layout memory budget limit rate index
""")
KEYS = _words("""
key keys
""")
# Before `key`: what is looked up or sorted by, and no secret.
_PLAIN_KEYS = _words("""
sort primary foreign group label target input output dict cache public by feature image text data order partition
metric monitor num n max query attention state config column row join map prng random rng
""")
TOKENS = re.compile(
    r"\b(?:hf_(?=[A-Za-z0-9]*[A-Z0-9])[A-Za-z0-9]{6,}|hf_[a-z]{20,}|gh[pousr]_[A-Za-z0-9]{6,}|github_pat_\w{6,}"
    r"|gl[a-z]{2,5}-[\w-]{10,}|xox[a-z]-[\w-]{6,}|sk-[\w-]{12,}|[spr]k_(?:live|test)_\w{6,}|(?:AKIA|ASIA|AROA)[A-Z0-9]{8,}"
    r"|AIza[\w-]{16,}|ya29\.[\w-]{8,}|eyJ[\w-]{6,4000}\.[\w-]{2,}(?:\.[\w-]*)?|npm_[A-Za-z0-9]{16,}|pypi-[\w-]{16,}"
    r"|dapi[0-9a-f]{16,}|SG\.[\w-]{8,}\.[\w-]{8,}|dop_v1_[0-9a-f]{16,}|shpat_[0-9a-fA-F]{16,}|wandb_v1_\w{8,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.S,
)
_RUN = re.compile(r"[A-Za-z0-9+=]{12,}")
_DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{60}|[0-9a-f]{64}|[0-9a-f]{128}")  # 60: paths of PyPI
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def secret_name(name: str) -> bool:
    """Whether a value of this name is a secret: `api_key`, `authToken`, `trainer.token`, `--db-password`; not
    `max_tokens`, `token_file`, `sort_key`."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    if not words or not _NOT.isdisjoint(words):
        return False
    if words[-1] in KEYS:
        return len(words) == 1 or words[-2] not in _PLAIN_KEYS
    return words[-1] in _LAST or not _ANYWHERE.isdisjoint(words)


def looks_secret(word: str) -> bool:
    """Whether a word has the shape of a token: a known prefix, or a long run of letters and digits in no order.
    Digests, numbers, UUIDs and Oracle's ids are none."""
    if TOKENS.search(word):
        return True
    if word.startswith(("ocid1.", "sha256:", "sha512:", "md5:")):
        return False
    for run in _RUN.findall(_UUID.sub("", word)):
        digits = sum(char.isdigit() for char in run)
        kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" if c.islower() else "s" for c in run]
        changes = sum(a != b for a, b in pairwise(kinds)) / len(run)
        cases = "u" in kinds and "l" in kinds
        if _DIGEST.fullmatch(run):
            continue
        if (changes >= 0.42 and cases) or (len(run) >= 16 and cases and digits and changes >= 0.33):
            return True
        if len(run) >= 20 and digits >= 3 and digits < len(run) and changes >= 0.3:
            return True
    return False
