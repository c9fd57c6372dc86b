package runner

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// HandedPath is where a machine's config puts what is handed over in it, see [Handed].
const HandedPath = "/run/flaudebot/handed.json.gz"

// MaxHanded bounds the file of the config that holds a [Handed], in bytes of its base64. Fly documents no limit for a config: this is far below
// what its own tools put into one.
const MaxHanded = 256 << 10

// maxUnpacked bounds what such a file may unpack to, in bytes.
const maxUnpacked = 16 << 20

// Handed is what the bot leaves in the machine's config, for a runner that is not asked by exec: it reads it at boot, does it, tells everything in
// the machine's log (see [LogLine]), and exits with the turn's code. Doing the same again is safe: a turn that has run is told of again from the volume.
type Handed struct {
	Key   []byte       `json:"key,omitempty"` // seals what is told in the log; 32 bytes
	Fence int64        `json:"fence"`
	Take  *TakeRequest `json:"take,omitempty"`
	Puts  []HandedPut  `json:"puts,omitempty"` // for the take
	Ask   string       `json:"ask,omitempty"`  // without a take: the turn to tell of
	Acked []string     `json:"acked,omitempty"`
}

// HandedPut is a whole file that a turn needs, see [PutRequest].
type HandedPut struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// Turn is the id of the turn that it is about; "": of none.
func (h Handed) Turn() string {
	if h.Take != nil {
		return h.Take.Turn.ID
	}
	return h.Ask
}

// Encode makes the raw value of a config's file.
func (h Handed) Encode() (string, error) {
	var out bytes.Buffer
	into := base64.NewEncoder(base64.StdEncoding, &out)
	zip := gzip.NewWriter(into)
	if err := errors.Join(json.NewEncoder(zip).Encode(h), zip.Close(), into.Close()); err != nil {
		return "", fmt.Errorf("encode what is handed over: %w", err)
	}
	return out.String(), nil
}

// DecodeHanded reads the raw value of a config's file.
func DecodeHanded(raw string) (Handed, error) {
	return readHanded(base64.NewDecoder(base64.StdEncoding, bytes.NewReader([]byte(raw))))
}

func readHanded(from io.Reader) (Handed, error) {
	var h Handed
	zip, err := gzip.NewReader(from)
	if err == nil {
		err = json.NewDecoder(io.LimitReader(zip, maxUnpacked)).Decode(&h)
	}
	if err != nil {
		return Handed{}, fmt.Errorf("read what was handed over: %w", err)
	}
	return h, nil
}

// handed takes what the config handed over at this boot from the disk, so that it is not there for others; nil: nothing.
func (c Config) handed() (*Handed, error) {
	name := filepath.Join(c.RunDir, filepath.Base(HandedPath))
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing was handed over
	}
	if err != nil {
		return nil, fmt.Errorf("read what was handed over: %w", err)
	}
	h, err := readHanded(f)
	if err := errors.Join(err, f.Close(), os.Remove(name)); err != nil {
		return nil, err
	}
	return &h, nil
}
