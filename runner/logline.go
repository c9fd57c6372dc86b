package runner

import (
	"bytes"
	"compress/gzip"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"regexp"
	"strconv"
)

// A runner that was handed a turn in its machine's config tells of it in the machine's log. Each [LogMessage] is packed, sealed with the key that
// came with the turn (what runs in the machine must not be able to forge one, and whoever reads logs alone reads nothing) and
// written as pieces, a line each:
//
//	[flaudebot:<turn>:<boot>.<message>:<piece>/<pieces>:<crc32> <base64>]
//
// turn is a digest of its id, boot is another one at each boot, messages and pieces are counted from 1, and the CRC-32 (IEEE) is that of the bytes
// of the piece. Lines may come late, twice or never: a [LogReader] gives a message when all of it is there, once.

// LogMessage is one thing that is told. Exactly one field but Boot is set.
type LogMessage struct {
	Boot  string     `json:"-"`
	Taken *TakeReply `json:"taken,omitempty"` // the first of each boot; its Status may also be unknown, to an Ask
	Event *Event     `json:"event,omitempty"`
	End   *LogEnd    `json:"end,omitempty"`
}

// LogEnd is how the turn ended, whole.
type LogEnd struct {
	Outcome Outcome `json:"outcome"`
	Text    string  `json:"text,omitempty"`
	Data    []byte  `json:"data,omitempty"` // the payload of an errand
}

const (
	pieceBytes = 1500    // of a message in one line, before base64: lines stay far below what any log cuts
	maxPieces  = 1 << 13 // of one message
)

// turnTag stands for a turn in the log: ids are Slack's, and of any form.
func turnTag(turn string) string {
	sum := sha256.Sum256([]byte(turn))
	return hex.EncodeToString(sum[:6])
}

// NewLogKey makes a key for one turn.
func NewLogKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return key
}

func newSeal(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("the key of the log: %w", err)
	}
	return cipher.NewGCM(block)
}

// logWriter tells of a turn in one boot.
type logWriter struct {
	to        io.Writer
	tag, boot string
	seal      cipher.AEAD
	told      int // messages
}

func newLogWriter(to io.Writer, turn string, key []byte) (*logWriter, error) {
	seal, err := newSeal(key)
	if err != nil {
		return nil, err
	}
	var boot [4]byte
	_, _ = rand.Read(boot[:]) // never fails
	return &logWriter{to: to, tag: turnTag(turn), boot: hex.EncodeToString(boot[:]), seal: seal}, nil
}

// tell writes a message. Each line goes out in one write, so that others' do not come into it.
func (w *logWriter) tell(m LogMessage) error {
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	if err := json.NewEncoder(zip).Encode(m); err != nil {
		return fmt.Errorf("encode for the log: %w", err)
	}
	if err := zip.Close(); err != nil {
		return fmt.Errorf("encode for the log: %w", err)
	}
	w.told++
	nonce := make([]byte, w.seal.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	sealed := w.seal.Seal(nonce, nonce, packed.Bytes(), messageName(w.tag, w.boot, w.told))
	pieces := (len(sealed) + pieceBytes - 1) / pieceBytes
	if pieces > maxPieces {
		return fmt.Errorf("%d bytes are too much for the log", len(sealed))
	}
	for n := 1; len(sealed) > 0; n++ {
		piece := sealed[:min(len(sealed), pieceBytes)]
		sealed = sealed[len(piece):]
		line := fmt.Sprintf("[flaudebot:%s:%s.%d:%d/%d:%08x %s]\n", w.tag, w.boot, w.told, n, pieces, crc32.ChecksumIEEE(piece), base64.StdEncoding.EncodeToString(piece))
		if _, err := io.WriteString(w.to, line); err != nil {
			return fmt.Errorf("write to the log: %w", err)
		}
	}
	return nil
}

// messageName is sealed in with a message, so that none can pass for another.
func messageName(tag, boot string, n int) []byte {
	return []byte(tag + ":" + boot + "." + strconv.Itoa(n))
}

// LogReader puts the messages of one turn together from the lines of its machine's log.
type LogReader struct {
	tag  string
	key  []byte
	seal cipher.AEAD
	open map[string]*logPieces // :: message → what came of it
	done map[string]bool       // :: messages that are whole
}

type logPieces struct {
	total int
	have  map[int][]byte
}

// NewLogReader reads for one turn with its key.
func NewLogReader(turn string, key []byte) (*LogReader, error) {
	seal, err := newSeal(key)
	if err != nil {
		return nil, err
	}
	return &LogReader{tag: turnTag(turn), key: key, seal: seal, open: map[string]*logPieces{}, done: map[string]bool{}}, nil
}

// HasKey reports whether it reads what is sealed with that key.
func (r *LogReader) HasKey(key []byte) bool { return bytes.Equal(r.key, key) }

var logLine = regexp.MustCompile(`\[flaudebot:([0-9a-f]{12}):([0-9a-f]{8})\.(\d{1,9}):(\d{1,5})/(\d{1,5}):([0-9a-f]{8}) ([A-Za-z0-9+/=]+)\]`)

// Read takes a line in, whatever it is, and returns the message that is whole with it, or nil.
func (r *LogReader) Read(line string) *LogMessage {
	f := logLine.FindStringSubmatch(line)
	if f == nil || f[1] != r.tag {
		return nil
	}
	boot := f[2]
	message, _ := strconv.Atoi(f[3])
	n, _ := strconv.Atoi(f[4])
	total, _ := strconv.Atoi(f[5])
	piece, err := base64.StdEncoding.DecodeString(f[7])
	if err != nil || fmt.Sprintf("%08x", crc32.ChecksumIEEE(piece)) != f[6] || n < 1 || n > total || total > maxPieces {
		return nil // damaged: it counts as missing
	}
	name := string(messageName(r.tag, boot, message))
	if r.done[name] {
		return nil
	}
	p := r.open[name]
	if p == nil || p.total != total {
		p = &logPieces{total: total, have: map[int][]byte{}}
		r.open[name] = p
	}
	p.have[n] = piece
	if len(p.have) < total {
		return nil
	}
	delete(r.open, name)
	m, err := r.unseal(name, p)
	if err != nil {
		return nil // forged, or put together from a forged piece: it counts as missing
	}
	r.done[name], m.Boot = true, boot
	return m
}

func (r *LogReader) unseal(name string, p *logPieces) (*LogMessage, error) {
	var sealed []byte
	for n := 1; n <= p.total; n++ {
		sealed = append(sealed, p.have[n]...)
	}
	size := r.seal.NonceSize()
	if len(sealed) < size {
		return nil, io.ErrUnexpectedEOF
	}
	packed, err := r.seal.Open(nil, sealed[:size], sealed[size:], []byte(name))
	if err != nil {
		return nil, err
	}
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	var m LogMessage
	return &m, json.NewDecoder(zip).Decode(&m)
}
