package sessions

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// secretsKey is a key of an operator; another n is another key.
func secretsKey(n byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n}, 32)) }

func keyring(t *testing.T, keys ...string) *Keyring {
	t.Helper()
	k, err := ParseKeys(strings.Join(keys, ","))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKeyring: a secret opens under its own key and in its own place, and nowhere else.
func TestKeyring(t *testing.T) {
	t.Parallel()
	at := place{"T1", "C1", "NPM_TOKEN"}
	const value = "npm_s3cr3t-värde\nsecond line"
	sealed, err := keyring(t, secretsKey(1)).seal(at, value)
	if err != nil || strings.Contains(sealed, "npm_") {
		t.Fatalf("seal = %q, %v", sealed, err)
	}
	if again, _ := keyring(t, secretsKey(1)).seal(at, value); again == sealed {
		t.Error("sealed twice it looks the same: who reads Redis could tell that two secrets are one")
	}
	raw, err := base64.RawStdEncoding.DecodeString(sealed[strings.LastIndexByte(sealed, '.')+1:])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	tampered := sealed[:strings.LastIndexByte(sealed, '.')+1] + base64.RawStdEncoding.EncodeToString(raw)
	var none *Keyring
	for name, tt := range map[string]struct {
		keys   *Keyring
		at     place
		sealed string
		old    bool
		says   string // "": it opens
	}{
		"its key":              {keyring(t, secretsKey(1)), at, sealed, false, ""},
		"an older key":         {keyring(t, secretsKey(2), secretsKey(1)), at, sealed, true, ""},
		"another key":          {keyring(t, secretsKey(2)), at, sealed, false, "is not in FLAUDEBOT_SECRETS_KEY"},
		"no key":               {none, at, sealed, false, "FLAUDEBOT_SECRETS_KEY is not set"},
		"tampered":             {keyring(t, secretsKey(1)), at, tampered, false, "damaged"},
		"cut short":            {keyring(t, secretsKey(1)), at, sealed[:len(sealed)-8], false, "damaged"},
		"no base64":            {keyring(t, secretsKey(1)), at, sealed + "!", false, "damaged"},
		"another form":         {keyring(t, secretsKey(1)), at, "v2." + sealed, false, "damaged"},
		"missing":              {keyring(t, secretsKey(1)), at, "", false, "damaged"},
		"of another channel":   {keyring(t, secretsKey(1)), place{"T1", "C2", "NPM_TOKEN"}, sealed, false, "another place"},
		"of another workspace": {keyring(t, secretsKey(1)), place{"T2", "C1", "NPM_TOKEN"}, sealed, false, "another place"},
		"under another name":   {keyring(t, secretsKey(1)), place{"T1", "C1", "OTHER"}, sealed, false, "another place"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, old, err := tt.keys.open(tt.at, tt.sealed)
			if tt.says == "" {
				if err != nil || got != value || old != tt.old {
					t.Errorf("open = %q, %v, %v; want %q, %v", got, old, err, value, tt.old)
				}
				return
			}
			if !errors.Is(err, ErrSealed) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.at.name) || got != "" {
				t.Errorf("open = %q, %v; want an error that says %q", got, err, tt.says)
			}
		})
	}
	if _, err := none.seal(at, value); !errors.Is(err, ErrNoSecretsKey) {
		t.Errorf("seal without a key = %v, want ErrNoSecretsKey", err)
	}
}

// TestParseKeys: what is no key is refused, and an error says nothing of it.
func TestParseKeys(t *testing.T) {
	t.Parallel()
	raw := bytes.Repeat([]byte{251}, 32)
	for name, tt := range map[string]struct {
		value string
		keys  int
		says  string
	}{
		"none":            {"", 0, ""},
		"one":             {secretsKey(1), 1, ""},
		"two":             {secretsKey(2) + " , " + secretsKey(1), 2, ""},
		"for addresses":   {base64.URLEncoding.EncodeToString(raw), 1, ""},
		"without padding": {base64.RawURLEncoding.EncodeToString(raw), 1, ""},
		"too short":       {base64.StdEncoding.EncodeToString(raw[:16]), 0, "key 1: want 32 random bytes in base64"},
		"too long":        {base64.StdEncoding.EncodeToString(append(raw, 1)), 0, "key 1: want 32"},
		"words":           {"correct horse battery staple", 0, "key 1: want 32"},
		"an empty second": {secretsKey(1) + ",", 0, "key 2: want 32"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, err := ParseKeys(tt.value)
			switch {
			case tt.says != "":
				if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), strings.Trim(tt.value, ",")) {
					t.Errorf("ParseKeys = %v, want an error that says %q and no key", err, tt.says)
				}
			case err != nil || (k == nil) != (tt.keys == 0) || (k != nil && len(k.keys) != tt.keys):
				t.Errorf("ParseKeys = %v, %v; want %d keys", k, err, tt.keys)
			}
		})
	}
}
