package fly

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"
)

// ids makes ULIDs that rise strictly: who asks for what came after one misses nothing, also within a millisecond.
type ids struct {
	mu   sync.Mutex
	ms   int64    // guarded by mu; of the newest one
	rest [10]byte // guarded by mu; what follows the time in it
}

// next returns 26 characters, higher than any it returned before.
func (g *ids) next() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now().UnixMilli(); now > g.ms {
		g.ms = now
		_, _ = rand.Read(g.rest[:]) // never fails
		g.rest[0] &= 0x7f           // room to count up
	} else {
		for i := len(g.rest) - 1; i >= 0; i-- {
			if g.rest[i]++; g.rest[i] != 0 {
				break
			}
		}
	}
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	out := make([]byte, 0, 26)
	for shift := 45; shift >= 0; shift -= 5 {
		out = append(out, alphabet[g.ms>>shift&31])
	}
	bits, n := 0, 0
	for _, b := range g.rest {
		bits, n = bits<<8|int(b), n+8
		for ; n >= 5; n -= 5 {
			out = append(out, alphabet[bits>>(n-5)&31])
		}
	}
	return string(out)
}

func newHex(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)[:n]
}
