package sessions

import (
	"flag"
	"os"
	"testing"
)

// TestMain runs many tests at once: they wait for machines that boot, and hardly compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
