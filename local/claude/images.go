package claude

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	_ "image/gif"  // sizes of pictures
	_ "image/jpeg" // the same
	_ "image/png"  // the same
	"net/http"
	"strings"
)

// source is where an image block's picture is: only base64 is spoken here.
type source struct {
	Type  string `json:"type"`
	Media string `json:"media_type"`
	Data  string `json:"data"`
}

// The API's limits of an image.
const (
	mostImage     = 5 << 20 // bytes, as base64
	mostImageSide = 8000    // pixels; 2000 in a request with more than fewImages
	fewImages     = 20
	mostImages    = 100
)

// Image is a picture as the API saw it.
type Image struct {
	Media  string `json:"media_type"`
	Width  int    `json:"width"`  // pixels; 0: not known, as of WebP
	Height int    `json:"height"` // the same
}

// images checks the pictures of a conversation as the API does, and returns those that people showed; why is its refusal.
func images(all []message) (out []Image, why string) {
	side := 0
	for i, m := range all {
		for j, b := range m.blocks() {
			if b.Type != "image" {
				continue
			}
			img, why := b.Source.look()
			if why != "" {
				return nil, fmt.Sprintf("messages.%d.content.%d.image.source.base64: %s", i, j, why)
			}
			side = max(side, img.Width, img.Height)
			out = append(out, img)
		}
	}
	switch {
	case len(out) > mostImages:
		return nil, fmt.Sprintf("Too many images: %d > %d", len(out), mostImages)
	case len(out) > fewImages && side > 2000:
		return nil, "At least one of the image dimensions exceed max allowed size for many-image requests: 2000 pixels"
	}
	return out, ""
}

// look decodes an image.
func (s *source) look() (img Image, why string) {
	if s == nil || s.Type != "base64" {
		return Image{}, "only base64 is known here"
	}
	if len(s.Data) > mostImage {
		return Image{}, fmt.Sprintf("image exceeds 5 MB maximum: %d bytes > %d bytes", len(s.Data), mostImage)
	}
	raw, err := base64.StdEncoding.DecodeString(s.Data)
	if err != nil {
		return Image{}, "invalid base64 data"
	}
	switch is := http.DetectContentType(raw); {
	case s.Media != "image/png" && s.Media != "image/jpeg" && s.Media != "image/gif" && s.Media != "image/webp":
		return Image{}, "media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'"
	case is != s.Media:
		return Image{}, fmt.Sprintf("The image was specified using the %s media type, but the image appears to be a %s image", s.Media, is)
	}
	img = Image{Media: s.Media}
	if s.Media == "image/webp" {
		return img, ""
	}
	size, _, err := image.DecodeConfig(bytes.NewReader(raw))
	switch {
	case err != nil:
		return Image{}, "Could not process image"
	case size.Width > mostImageSide || size.Height > mostImageSide:
		return Image{}, fmt.Sprintf("At least one of the image dimensions exceed max allowed size: %d pixels", mostImageSide)
	}
	img.Width, img.Height = size.Width, size.Height
	return img, ""
}

// sees tells the pictures of a turn.
func sees(t talk, _ []string) step {
	if len(t.images) == 0 {
		return step{text: "I see no picture."}
	}
	var text strings.Builder
	text.WriteString("I see:")
	for _, img := range t.images {
		fmt.Fprintf(&text, "\n- %s of %d × %d pixels", img.Media, img.Width, img.Height)
	}
	return step{text: text.String()}
}

// shown are the pictures of a message.
func shown(content json.RawMessage) []Image {
	out, _ := images([]message{{Role: "user", Content: content}})
	return out
}
