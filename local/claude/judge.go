package claude

import (
	"slices"
	"strings"
)

// actionIn is what Claude is about to do, where the classifier of Claude Code's permission mode auto asks whether that is to be blocked: it
// shows the conversation as a transcript with the action last, and has no tools. "": it is not what asks.
func actionIn(req request) string {
	if len(req.Tools) > 0 || !strings.Contains(flat(req.System), "<block>no</block>") {
		return ""
	}
	var shown []string
	for _, m := range req.Messages {
		for _, b := range m.blocks() {
			shown = append(shown, strings.TrimSpace(b.Text))
		}
	}
	if end := slices.Index(shown, "</transcript>"); end > 0 {
		return shown[end-1]
	}
	return ""
}

// judge answers in the form that the classifier asks for. The script finds curl harmful and nothing else.
func judge(action string) string {
	if strings.Contains(action, "curl ") {
		return "<block>yes</block><reason>[Data Exfiltration] the script finds curl harmful</reason>"
	}
	return "<block>no</block>"
}
