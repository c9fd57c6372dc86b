package sessions

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNoSecretsKey says that this bot has no key to store secrets with.
	ErrNoSecretsKey = errors.New("secrets cannot be stored: FLAUDEBOT_SECRETS_KEY is not set")
	// ErrSealed says that a stored secret cannot be opened: its key is not among ours, or it is not what was stored in its place.
	ErrSealed = errors.New("a stored secret cannot be opened")
)

// Keyring seals the secrets of channels for Redis, and opens them: AES-256-GCM under a key that HKDF-SHA256 derives from the operator's.
// A sealed value is bound to its team, channel and name: moved elsewhere it does not open. The first key seals, all of them open.
type Keyring struct{ keys []sealingKey }

type sealingKey struct {
	id   string // tells the key of a sealed value; says nothing about the key itself
	aead cipher.AEAD
}

// sealVersion begins every sealed value: version, key id and ciphertext, separated by dots.
const sealVersion = "v1"

// ParseKeys reads one key or more, separated by commas, the newest first: each 32 random bytes in base64. "": no keyring. The error holds
// nothing of the keys.
func ParseKeys(value string) (*Keyring, error) {
	if strings.TrimSpace(value) == "" {
		return nil, nil
	}
	var k Keyring
	for i, one := range strings.Split(value, ",") {
		raw, err := decodeKey(strings.TrimSpace(one))
		if err != nil {
			return nil, fmt.Errorf("key %d: want 32 random bytes in base64, as `openssl rand -base64 32` makes them", i+1)
		}
		key, err := newSealingKey(raw)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		k.keys = append(k.keys, key)
	}
	return &k, nil
}

func decodeKey(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		raw, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	}
	if err == nil && len(raw) != 32 {
		err = errors.New("another length")
	}
	return raw, err
}

func newSealingKey(raw []byte) (sealingKey, error) {
	sealing, err := hkdf.Key(sha256.New, raw, nil, "flaudebot channel secrets", 32)
	if err != nil {
		return sealingKey{}, err
	}
	id, err := hkdf.Key(sha256.New, raw, nil, "flaudebot channel secrets: key id", 4)
	if err != nil {
		return sealingKey{}, err
	}
	block, err := aes.NewCipher(sealing)
	if err != nil {
		return sealingKey{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealingKey{id: hex.EncodeToString(id), aead: aead}, err
}

// place is what a secret is bound to. None of its parts can hold a NUL byte.
type place struct{ team, channel, name string }

func (p place) bytes() []byte {
	return []byte(strings.Join([]string{p.team, p.channel, p.name}, "\x00"))
}

func (k *Keyring) seal(at place, value string) (string, error) {
	if k == nil {
		return "", ErrNoSecretsKey
	}
	key := k.keys[0]
	return strings.Join([]string{sealVersion, key.id, base64.RawStdEncoding.EncodeToString(key.aead.Seal(nil, nil, []byte(value), at.bytes()))}, "."), nil
}

// open returns the value, and whether another key than the newest sealed it.
func (k *Keyring) open(at place, sealed string) (value string, old bool, err error) {
	if k == nil {
		return "", false, fmt.Errorf("%w: %s: FLAUDEBOT_SECRETS_KEY is not set", ErrSealed, at.name)
	}
	parts := strings.Split(sealed, ".")
	if len(parts) != 3 || parts[0] != sealVersion {
		return "", false, fmt.Errorf("%w: %s: it is damaged", ErrSealed, at.name)
	}
	raw, err := base64.RawStdEncoding.DecodeString(parts[2])
	if err != nil {
		return "", false, fmt.Errorf("%w: %s: it is damaged", ErrSealed, at.name)
	}
	for i, key := range k.keys {
		if key.id != parts[1] {
			continue
		}
		text, err := key.aead.Open(nil, nil, raw, at.bytes())
		if err != nil {
			return "", false, fmt.Errorf("%w: %s: it is damaged, or was stored for another place", ErrSealed, at.name)
		}
		return string(text), i > 0, nil
	}
	return "", false, fmt.Errorf("%w: %s: the key that it was stored with is not in FLAUDEBOT_SECRETS_KEY", ErrSealed, at.name)
}
