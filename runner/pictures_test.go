package runner

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
)

// drawn is a picture of that size.
func drawn(t *testing.T, width, height int, encode func(*bytes.Buffer, image.Image) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(b *bytes.Buffer, m image.Image) error { return png.Encode(b, m) }

// webp is the smallest picture in that form: 1 × 1, lossy; from the WebP container's own description.
func webp(t *testing.T) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestPictureOf(t *testing.T) {
	t.Parallel()
	small := drawn(t, 3, 2, asPNG)
	extended := append([]byte("RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00"), 0xFF, 0x1F, 0x00, 0x01, 0x00, 0x00) // 8192 × 2
	lossless := append([]byte("RIFF\x16\x00\x00\x00WEBPVP8L\x0a\x00\x00\x00\x2f"), 0x02, 0x40, 0, 0, 0, 0, 0, 0, 0)                // 3 × 2
	for _, c := range []struct {
		name  string
		raw   []byte
		media string
		err   string
	}{
		{"PNG", small, "image/png", ""},
		{"JPEG", drawn(t, 3, 2, func(b *bytes.Buffer, m image.Image) error { return jpeg.Encode(b, m, nil) }), "image/jpeg", ""},
		{"GIF", drawn(t, 3, 2, func(b *bytes.Buffer, m image.Image) error { return gif.Encode(b, m, nil) }), "image/gif", ""},
		{"WebP, lossy", webp(t), "image/webp", ""},
		{"WebP, lossless", lossless, "image/webp", ""},
		{"WebP, extended and too wide", extended, "", "more than 8000 pixels"},
		{"WebP, cut short", webp(t)[:16], "", "no PNG"},
		{"too high", drawn(t, 1, 8001, asPNG), "", "more than 8000 pixels"},
		{"too large", append(bytes.Clone(small), make([]byte, maxPicture)...), "", "larger than 3840 KB"},
		{"as large as may be", append(bytes.Clone(small), make([]byte, maxPicture-len(small))...), "image/png", ""},
		{"a head and nothing behind it", small[:20], "", "no PNG"},
		{"text", []byte("hello"), "", "no PNG"},
		{"an SVG", []byte("<svg xmlns='http://www.w3.org/2000/svg'/>"), "", "no PNG"},
		{"nothing", nil, "", "no PNG"},
	} {
		p, err := pictureOf("a.png", c.raw)
		if p.media != c.media || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v, want %q, %q", c.name, p.media, err, c.media, c.err)
		}
	}
	if n := base64.StdEncoding.EncodedLen(maxPicture); n > 5<<20 {
		t.Errorf("the largest picture has %d bytes on the way, want at most what the API takes", n)
	}
}

func TestPictures(t *testing.T) {
	t.Parallel()
	m := newMachine(t).boot()
	shot := drawn(t, 3, 2, asPNG)
	run := func(prompt string, files map[string][]byte, names ...string) string {
		t.Helper()
		turn := m.turn(prompt)
		for _, name := range names {
			raw := files[name]
			call[PutReply](m, "put", PutRequest{Turn: turn.ID, Fence: m.fence, Name: "file/" + name, Data: raw})
			sum := sha256.Sum256(raw)
			turn.Files = append(turn.Files, File{Name: name, Size: int64(len(raw)), SHA256: hex.EncodeToString(sum[:])})
		}
		_, answer := m.run(turn, Secrets{})
		return answer
	}
	t.Run("those of the message come before the prompt, byte by byte", func(t *testing.T) {
		got := run("look at the pictures:", map[string][]byte{"a.png": shot, "notes.txt": []byte("text"), "b": webp(t)}, "a.png", "notes.txt", "b")
		want := fmt.Sprintf("attachments/a.png:\nbase64 image/png %x\nattachments/b:\nbase64 image/webp %x\nlook at the pictures:\nlook at the pictures:",
			sha256.Sum256(shot), sha256.Sum256(webp(t)))
		if got != want {
			t.Errorf("Claude Code got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("the prompt tells of one that is none, and stays a text", func(t *testing.T) {
		got := run("and now", map[string][]byte{"a.png": []byte("text")}, "a.png")
		want := "You said: - attachments/a.png is not shown to you: it is no PNG, JPEG, GIF or WebP picture. It is in the workspace as a file.\n\nand now"
		if got != want {
			t.Errorf("Claude Code got %q, want %q", got, want)
		}
	})
	t.Run("too many are not all shown", func(t *testing.T) {
		turn := &turn{prompt: "/look"}
		for i := range maxPictures + 2 {
			turn.show(fmt.Sprintf("%d.png", i), shot)
		}
		blocks, _ := turn.content().([]map[string]any)
		last, _ := blocks[len(blocks)-1]["text"].(string)
		if len(blocks) != 2*maxPictures+1 || strings.Count(last, "too many pictures") != 2 || !strings.HasSuffix(last, "/look") {
			t.Errorf("%d blocks, the last %q", len(blocks), last)
		}
	})
	t.Run("a prompt behind a picture is no command", func(t *testing.T) {
		turn := &turn{prompt: "/clear"}
		turn.show("a.png", shot)
		blocks, _ := turn.content().([]map[string]any)
		if len(blocks) != 3 || blocks[2]["text"] != " /clear" {
			t.Errorf("blocks = %v", blocks)
		}
	})
}
