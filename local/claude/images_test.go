package claude

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestImages(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	draw := func(width, height int) string {
		var b bytes.Buffer
		if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b.Bytes())
	}
	block := func(media, data string) string {
		return fmt.Sprintf(`{"type":"image","source":{"type":"base64","media_type":%q,"data":%q}}`, media, data)
	}
	for _, c := range []struct {
		name, blocks string
		status       int
		want         string
	}{
		{"a picture", block("image/png", draw(3, 2)), http.StatusOK, "image/png of 3 × 2 pixels"},
		{"none", "", http.StatusOK, "I see no picture."},
		{"under a wrong type", block("image/jpeg", draw(3, 2)), http.StatusBadRequest, "appears to be a image/png image"},
		{"of an unknown type", block("image/tiff", draw(3, 2)), http.StatusBadRequest, "media_type"},
		{"too wide", block("image/png", draw(8001, 1)), http.StatusBadRequest, "8000 pixels"},
		{"too large", block("image/png", draw(1, 1)+strings.Repeat("A", 5<<20)), http.StatusBadRequest, "image exceeds 5 MB maximum"},
		{"too large for many", strings.Repeat(block("image/png", draw(1, 1))+",", 20) + block("image/png", draw(2001, 1)), http.StatusBadRequest, "many-image requests"},
		{"no base64", block("image/png", "*"), http.StatusBadRequest, "base64"},
	} {
		content := `{"type":"text","text":"what do you see?"}`
		if c.blocks != "" {
			content = c.blocks + "," + content
		}
		res := ask(t, api, "/v1/messages", `{"model":"claude-x","messages":[{"role":"user","content":[`+content+`]}],`+bash+`}`, "X-Api-Key", Key)
		raw, _ := io.ReadAll(res.Body)
		if res.StatusCode != c.status || !strings.Contains(string(raw), c.want) {
			t.Errorf("%s: %d %s, want %d %q", c.name, res.StatusCode, raw, c.status, c.want)
		}
	}
}
