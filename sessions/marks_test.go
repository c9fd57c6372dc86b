package sessions

import (
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
	for _, want := range []bool{false, true, true, false} {
		if err := sv.Mute(t.Context(), thread(), want); err != nil {
			t.Fatal(err)
		}
		if got, err := sv.Muted(t.Context(), thread()); err != nil || got != want {
			t.Errorf("Muted = %v, %v, want %v", got, err, want)
		}
	}
	if err := sv.Mute(t.Context(), thread(), true); err != nil {
		t.Fatal(err)
	}
	if got, err := sv.Muted(t.Context(), other); err != nil || got {
		t.Errorf("Muted = %v, %v of another thread", got, err)
	}
}
