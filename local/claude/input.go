package claude

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
)

// listen reads stdin: messages become turns, an interrupt is acted on at once. bad gets at most one error, and is closed
// after turns is. A reader that stdin never lets go of ends with the process.
func (a *agent) listen(ctx context.Context, stdin io.Reader) (turns <-chan json.RawMessage, bad <-chan error) {
	said, wrong := make(chan json.RawMessage, 16), make(chan error, 1)
	go func() {
		defer close(wrong)
		defer close(said)
		lines := bufio.NewReader(stdin)
		for {
			line, err := lines.ReadBytes('\n')
			if len(bytes.TrimSpace(line)) > 0 {
				if err := a.hear(ctx, line, said); err != nil {
					wrong <- err
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return said, wrong
}

// hear takes one line of stdin.
func (a *agent) hear(ctx context.Context, line []byte, turns chan<- json.RawMessage) error {
	var in struct {
		Type    string `json:"type"`
		ID      string `json:"request_id"`
		Message struct {
			Content json.RawMessage `json:"content"`
		} `json:"message"`
		Request struct {
			Subtype string `json:"subtype"`
		} `json:"request"`
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return err
	}
	switch in.Type {
	case "user":
		select {
		case turns <- in.Message.Content:
		case <-ctx.Done():
		}
	case "control_request":
		a.control(in.ID, in.Request.Subtype)
	}
	return nil
}

// control answers a control request and does what it asks for.
func (a *agent) control(id, subtype string) {
	response := map[string]any{"subtype": "success", "request_id": id}
	switch subtype {
	case "initialize", "interrupt", "set_permission_mode", "set_model":
	default:
		response["subtype"], response["error"] = "error", "Unsupported control request subtype: "+subtype
	}
	a.emit(map[string]any{"type": "control_response", "response": response})
	if subtype == "interrupt" {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.stop != nil {
			a.stop()
		}
	}
}
