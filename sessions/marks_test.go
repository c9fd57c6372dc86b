package sessions

import (
	"fmt"
	"testing"
)

func TestMarks(t *testing.T) {
	t.Parallel()
	st, _ := newTestStore(t)
	sv := &Service{store: st}
	mark := func(team string, upTo map[string]string) {
		t.Helper()
		if err := sv.Mark(t.Context(), team, upTo); err != nil {
			t.Fatal(err)
		}
	}
	mark("T1", nil)
	mark("T1", map[string]string{"C1": "1700000100.000000", "C2": "1700000100.000000"})
	mark("T1", map[string]string{"C1": "1700000300.000000"})
	mark("T1", map[string]string{"C1": "1700000200.000000"}) // came late
	mark("T11", map[string]string{"C1": "1700000900.000000"})
	got, err := sv.Marks(t.Context(), "T1")
	if err != nil {
		t.Fatal(err)
	}
	for channel, want := range map[string]Mark{
		"C1": {Since: "1700000100.000000", UpTo: "1700000300.000000"},
		"C2": {Since: "1700000100.000000", UpTo: "1700000100.000000"},
	} {
		if got[channel] != want {
			t.Errorf("the mark of %s = %+v, want %+v", channel, got[channel], want)
		}
	}
	if len(got) != 2 {
		t.Errorf("marks = %v, want those of the team alone", got)
	}
}

func TestMute(t *testing.T) {
	t.Parallel()
	st, _ := newTestStore(t)
	sv := &Service{store: st}
	other := thread()
	other.TS = "102"
	mute := func(muted bool, at string) {
		t.Helper()
		if err := sv.Mute(t.Context(), thread(), muted, at); err != nil {
			t.Fatal(err)
		}
	}
	check := func(thread Thread, at string, want bool) {
		t.Helper()
		if got, err := sv.Muted(t.Context(), thread, at); err != nil || got != want {
			t.Errorf("Muted at %q = %v, %v, want %v", at, got, err, want)
		}
	}
	check(thread(), "", false)
	mute(false, "200.000001")
	check(thread(), "", false)
	mute(true, "300.000001")
	mute(true, "300.000001") // sent again
	check(thread(), "", true)
	mute(false, "500.000001")
	mute(true, "400.000001") // overtaken
	check(thread(), "", false)
	for at, want := range map[string]bool{
		"100.000001": false, "300.000000": false, "300.000001": false, "300.000002": true, "499.999999": true, "500.000001": true, "500.000002": false,
	} {
		check(thread(), at, want)
		check(other, at, false)
	}
	for i := range 2 * muteNotes {
		mute(i%2 == 0, fmt.Sprintf("6%02d.000001", i))
	}
	check(thread(), "638.000002", true)
	check(thread(), "", false)
	if n := sv.store.rdb.ZCard(t.Context(), sv.store.muted(thread())).Val(); n != muteNotes {
		t.Errorf("%d changes are remembered, want the last %d", n, muteNotes)
	}
}
