package runner

import (
	"strings"
	"testing"
)

// FuzzTokens: what is left has no token in it, and what was none is left.
func FuzzTokens(f *testing.F) {
	for _, seed := range []string{
		"", "x ghp_" + strings.Repeat("a", 40) + " y", "eyJ" + strings.Repeat("a", 9) + ".eyJ" + strings.Repeat("b", 9) + ".c", "AKIAAKIA" + strings.Repeat("A", 12), "sk-ant-sk-ant-" + strings.Repeat("x", 30),
		"-----BEGIN PRIVATE" + " KEY-----\n-----BEGIN", "-----BEGIN X-----END PRIVATE" + " KEY-----", "xoxb-xoxb-xoxb-xoxb-xoxb-",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		out := withoutTokens(text)
		if again := withoutTokens(out); again != out {
			t.Errorf("%q becomes %q, and that %q", text, out, again)
		}
		rest := text
		for part := range strings.SplitSeq(out, redacted) {
			i := strings.Index(rest, part)
			if i < 0 {
				t.Fatalf("%q becomes %q", text, out)
			}
			rest = rest[i+len(part):]
		}
	})
}

func BenchmarkWithoutTokens(b *testing.B) {
	for name, text := range map[string]string{
		"one line": strings.Repeat("x", 1<<20), "prose": strings.Repeat("the task-list says eyJust so. ", 1<<20/30), "against it": strings.Repeat("eyJ-", 1<<18),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				withoutTokens(text)
			}
		})
	}
}
