package bot

import (
	"sync"
	"time"

	"flaudebot/sessions"
)

// settingsFor is how long a replica believes what it read of a channel's settings: each message asks for them.
const settingsFor = 5 * time.Second

// knownSettings are the settings of channels that were read lately.
type knownSettings struct {
	mu  sync.Mutex
	all map[string]known[sessions.Settings] // guarded by mu; :: channel → its settings
}

// get returns what was read last, and whether that is fresh.
func (k *knownSettings) get(channel string) (s sessions.Settings, fresh, had bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	one, had := k.all[channel]
	return one.what, had && time.Now().Before(one.until), had
}

func (k *knownSettings) put(channel string, s sessions.Settings) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil || len(k.all) > 10000 {
		k.all = map[string]known[sessions.Settings]{}
	}
	k.all[channel] = known[sessions.Settings]{s, time.Now().Add(settingsFor)}
}
