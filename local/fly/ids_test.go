package fly

import (
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
)

func TestIDs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the clock stands still: all of them are of one nanosecond
		var g ids
		var all []string
		for range 1000 {
			all = append(all, g.next())
		}
		for i, id := range all {
			if !regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`).MatchString(id) {
				t.Fatalf("%q is no ULID", id)
			}
			if i > 0 && id <= all[i-1] {
				t.Fatalf("%s came after %s", id, all[i-1])
			}
		}
		s := &Server{}
		var tokens []int64
		for range 1000 {
			tokens = append(tokens, s.newToken())
		}
		if !slices.IsSorted(tokens) || len(slices.Compact(tokens)) != 1000 {
			t.Error("tokens of one nanosecond do not rise")
		}
	})
}
