package bot

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"flaudebot/local/chromium"
	"flaudebot/local/slack"
)

// sheetScript lays the states of messages out in columns, with the page's own code, and tells what is wrong with how they look.
//
//go:embed testdata/sheet.js
var sheetScript string

// state is a message, or several, or a modal, in one of the states that it can be in, as testdata has it.
type state struct {
	Name     string            `json:"name"`
	Messages []json.RawMessage `json:"messages,omitempty"`
	View     json.RawMessage   `json:"view,omitempty"`
	Errors   map[string]string `json:"errors,omitempty"`
}

// sheets are all states of all messages, in groups that fit on a picture, and what becomes of each construct of Markdown.
func sheets(t *testing.T) map[string][]state {
	t.Helper()
	read := func(file string, v any) {
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var all map[string][]json.RawMessage
	read(filepath.Join("testdata", "messages.json"), &all)
	out := map[string][]state{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		group, _, _ := strings.Cut(name, ", ")
		switch {
		case strings.Contains(name, "failure"):
			group = "failure"
		case !slices.Contains([]string{"live", "answer", "note"}, group):
			group = "more"
		}
		out[group] = append(out[group], state{Name: name, Messages: all[name]})
	}
	var views map[string]state
	read(filepath.Join("testdata", "views.json"), &views)
	for _, name := range slices.Sorted(maps.Keys(views)) {
		group := "modal"
		if strings.Contains(name, "View, ") && !strings.HasPrefix(name, "pullView") {
			group = "settings"
		}
		s := views[name]
		s.Name = name
		out[group] = append(out[group], s)
	}
	files, err := filepath.Glob("testdata/markdown/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		s := state{Name: strings.TrimSuffix(filepath.Base(file), ".json")}
		read(file, &s.Messages)
		out["markdown"] = append(out["markdown"], s)
	}
	return out
}

// TestPictures draws every state of every message on the page of the local Slack, light and dark, wide and narrow: nothing is wider than its
// column, everything can be read against what is behind it, and every button has a name. FLAUDEBOT_TEST_PICTURES names a folder that the
// pictures are written to.
func TestPictures(t *testing.T) {
	t.Parallel()
	ctx := chromium.Open(t, 1280, 860, false)
	server, err := slack.New(slack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(server.Handler())
	t.Cleanup(func() {
		_ = server.Close()
		h.CloseClientConnections()
		h.Close()
	})
	if err := chromedp.Do(ctx, chromedp.Navigate(h.URL), withMedia("light")); err != nil {
		t.Fatal(err)
	}
	ready := chromedp.Poll[bool](`!!(document.querySelector("button[data-channel]") && state.people.U0MEMBER && seen.channel)`, chromedp.WithPollingTimeout(time.Minute))
	if _, err := chromedp.Run(ctx, ready); err != nil {
		t.Fatal(err)
	}
	groups := sheets(t)
	for _, scheme := range []string{"light", "dark"} {
		for name, columns := range map[string]struct{ number, width int }{"wide": {2, 640}, "narrow": {4, 316}} {
			if os.Getenv("FLAUDEBOT_TEST_PICTURES") == "" && (scheme == "light") != (name == "wide") {
				continue // light and wide, dark and narrow: `make pictures` has all four
			}
			for _, group := range slices.Sorted(maps.Keys(groups)) {
				draw(t, ctx, fmt.Sprintf("%s-%s-%s", group, scheme, name), scheme, columns.number, columns.width, groups[group])
			}
		}
	}
}

// withMedia has pages drawn for people who like them light or dark, at the same time of day everywhere.
func withMedia(scheme string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		if err == nil {
			_, err = cdp.Call(ctx, t, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "UTC"})
		}
		return chromedp.Void{}, err
	}
}

func draw(t *testing.T, ctx context.Context, name, scheme string, columns, width int, states []state) {
	t.Helper()
	raw, err := json.Marshal(states)
	if err != nil {
		t.Fatal(err)
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(limit, withMedia(scheme), chromedp.EmulateViewport(1320, 800)); err != nil {
		t.Fatal(err)
	}
	wrong, err := chromedp.Run(limit, chromedp.Evaluate[string](fmt.Sprintf("(%s)(%d, %d, %s)", strings.TrimSpace(sheetScript), columns, width, raw)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if wrong != "" {
		t.Errorf("%s:\n%s", name, wrong)
	}
	dir := os.Getenv("FLAUDEBOT_TEST_PICTURES")
	if dir == "" {
		return
	}
	shot, err := chromedp.Run(limit, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), small(t, shot), 0o644); err != nil {
		t.Fatal(err)
	}
}

// small makes a picture small: with few colours, each in the place of those near it.
func small(t *testing.T, shot []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	times := map[color.Color]int{}
	bounds := full.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			times[full.At(x, y)]++
		}
	}
	most := slices.SortedFunc(maps.Keys(times), func(a, b color.Color) int {
		return cmp.Or(times[b]-times[a], cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	palette := color.Palette{most[0]}
	for _, c := range most[1:] {
		if near := palette[palette.Index(c)]; len(palette) < 16 && apart(c, near) > 96 {
			palette = append(palette, c)
		}
	}
	nearest := map[color.Color]uint8{}
	out := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := full.At(x, y)
			i, known := nearest[c]
			if !known {
				i = uint8(palette.Index(c))
				nearest[c] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// apart is how much two colours differ, in 255ths over all channels.
func apart(a, b color.Color) int {
	ar, ag, ab, _ := a.RGBA()
	br, bg, bb, _ := b.RGBA()
	differ := func(x, y uint32) int { return max(int(x>>8)-int(y>>8), int(y>>8)-int(x>>8)) }
	return differ(ar, br) + differ(ag, bg) + differ(ab, bb)
}
