package runner

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // sizes of pictures
	_ "image/jpeg" // the same
	_ "image/png"  // the same
	"net/http"
	"strings"
)

// What the Messages API takes of pictures, and what of it a turn may use: pictures stay in the conversation and are sent again with every
// request, which may have 32 MB.
const (
	maxPicture     = 5 << 20 / 4 * 3 // bytes; 5 MB as base64
	maxPictureSide = 8000            // pixels
	maxPictures    = 20              // of a turn: with more in a request the API takes smaller ones only
	maxPictureSum  = 12 << 20        // bytes of a turn's
)

// picture is an attachment that Claude is shown beside its being a file.
type picture struct {
	name  string // below attachments
	media string // image/png, …
	raw   []byte
}

// looksLikePicture tells a name, of which one expects to be shown something.
func looksLikePicture(name string) bool {
	name = strings.ToLower(name)
	for _, end := range []string{".png", ".jpg", ".jpeg", ".gif", ".webp"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// show has Claude shown an attachment if that is a picture which the Messages API takes. The content counts, not the name; a picture by name
// that is not shown is told of.
func (t *turn) show(name string, raw []byte) {
	p, err := pictureOf(name, raw)
	sum := len(raw)
	for _, shown := range t.pictures {
		sum += len(shown.raw)
	}
	switch {
	case errors.Is(err, errNoPicture) && !looksLikePicture(name):
		return
	case err == nil && (len(t.pictures) == maxPictures || sum > maxPictureSum):
		err = errors.New("there are too many pictures for one message")
	}
	if err != nil {
		t.unshown = append(t.unshown, Unshown{Name: name, Why: err.Error()})
		return
	}
	t.pictures = append(t.pictures, p)
}

var errNoPicture = errors.New("it is no PNG, JPEG, GIF or WebP picture")

// pictureOf looks at the content.
func pictureOf(name string, raw []byte) (picture, error) {
	media := http.DetectContentType(raw)
	var width, height int
	switch media {
	case "image/png", "image/jpeg", "image/gif":
		c, _, err := image.DecodeConfig(bytes.NewReader(raw))
		if err != nil {
			return picture{}, errNoPicture
		}
		width, height = c.Width, c.Height
	case "image/webp":
		var ok bool
		if width, height, ok = webpSize(raw); !ok {
			return picture{}, errNoPicture
		}
	default:
		return picture{}, errNoPicture
	}
	switch {
	case len(raw) > maxPicture:
		return picture{}, fmt.Errorf("it is larger than %d KB", maxPicture>>10)
	case width > maxPictureSide || height > maxPictureSide:
		return picture{}, fmt.Errorf("it has more than %d pixels in one direction", maxPictureSide)
	case width == 0 || height == 0:
		return picture{}, errNoPicture
	}
	return picture{name: name, media: media, raw: raw}, nil
}

// webpSize reads a WebP picture's size in pixels, from the first chunk of its RIFF container (RFC 9649, section 2).
func webpSize(raw []byte) (width, height int, ok bool) {
	if len(raw) < 30 {
		return 0, 0, false
	}
	body := raw[20:]
	switch string(raw[12:16]) {
	case "VP8X": // 24 bits each, less one
		width, height = 1+int(uint24(body[4:])), 1+int(uint24(body[7:]))
	case "VP8L": // 14 bits each, less one, behind a byte of its own
		bits := binary.LittleEndian.Uint32(body[1:])
		width, height = 1+int(bits&0x3FFF), 1+int(bits>>14&0x3FFF)
		ok = body[0] == 0x2F
		return width, height, ok
	case "VP8 ": // 14 bits each, behind the frame's tag and start code
		if !bytes.Equal(body[3:6], []byte{0x9D, 0x01, 0x2A}) {
			return 0, 0, false
		}
		width, height = int(binary.LittleEndian.Uint16(body[6:])&0x3FFF), int(binary.LittleEndian.Uint16(body[8:])&0x3FFF)
	default:
		return 0, 0, false
	}
	return width, height, true
}

func uint24(b []byte) uint32 { return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 }

// content is what Claude is given: the prompt, behind the pictures that came with it. The last text decides for Claude Code whether it is a
// command.
func (t *turn) content() any {
	prompt := t.prompt
	var notes strings.Builder
	for _, p := range t.unshown {
		fmt.Fprintf(&notes, "- attachments/%s is not shown to you: %s. It is in the workspace as a file.\n", p.Name, p.Why)
	}
	if notes.Len() > 0 {
		prompt = notes.String() + "\n" + prompt
	}
	prompt = notACommand(prompt)
	if len(t.pictures) == 0 {
		return prompt
	}
	var out []map[string]any
	for _, p := range t.pictures {
		out = append(out,
			map[string]any{"type": "text", "text": "attachments/" + p.name + ":"},
			map[string]any{"type": "image", "source": map[string]any{
				"type": "base64", "media_type": p.media, "data": base64.StdEncoding.EncodeToString(p.raw),
			}})
	}
	return append(out, map[string]any{"type": "text", "text": prompt})
}
