package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/jpeg"
	"image/png"
	"net/http"
	"slices"
	"strings"
	"testing"

	"flaudebot/local/claude"
)

// TestPictures shows a picture in a message to Claude, as a picture and as a file; TestRealClaudePictures does so with the real Claude Code.
func TestPictures(t *testing.T) {
	t.Parallel()
	pictures(t, splitWorld(t))
}

func TestRealClaudePictures(t *testing.T) {
	t.Parallel()
	realClaude(t)
	pictures(t, splitWorld(t, "--agent", "cli"))
}

func pictures(t *testing.T, w *split) {
	t.Helper()
	start(t, w.env, "serve")
	general := w.channel("general")
	picture := image.NewGray(image.Rect(0, 0, 120, 80))
	var asPNG, asJPEG bytes.Buffer
	if err := png.Encode(&asPNG, picture); err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(&asJPEG, picture, nil); err != nil {
		t.Fatal(err)
	}
	// The content counts: what is called .txt is shown as well, and what only is called .png is not.
	root := w.attachAll(t, general, mention+"what do you see?", []upload{
		{"shot.png", asPNG.Bytes()}, {"photo.txt", asJPEG.Bytes()}, {"fake.png", []byte("no picture at all")},
	})
	text, code := w.answer(general, root, root)
	if want := []string{"image/png of 120 × 80 pixels", "image/jpeg of 120 × 80 pixels", "Claude has `fake.png` as a file, and was not shown it as a picture"}; code != "0" || !hasAll(text, want...) {
		t.Errorf("answer = %q (exit %s), want %q", text, code, want)
	}
	seen := apiLog(t, w.claude)
	at := slices.IndexFunc(seen, func(s claude.Seen) bool { return strings.Contains(s.Prompt, "what do you see?") && len(s.Images) == 2 })
	if at < 0 {
		t.Fatalf("the Messages API saw %+v, want a request with two images", seen)
	}
	if prompt := seen[at].Prompt; !hasAll(prompt, "attachments/fake.png is not shown to you: it is no PNG, JPEG, GIF or WebP picture", "- attachments/shot.png") {
		t.Errorf("prompt = %q, want it to tell of the picture that is none", prompt)
	}
	text, code = w.answer(general, root, w.say(member, general, root, "run: wc -c attachments/*"))
	if code != "0" || !hasAll(text, "attachments/shot.png", "attachments/photo.txt", "17 attachments/fake.png") {
		t.Errorf("files = %q (exit %s), want all three in the workspace", text, code)
	}
}

func hasAll(text string, all ...string) bool {
	return !slices.ContainsFunc(all, func(s string) bool { return !strings.Contains(text, s) })
}

// apiLog is what the local Messages API was asked.
func apiLog(t *testing.T, addr string) []claude.Seen {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/local/log", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var out []claude.Seen
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}
