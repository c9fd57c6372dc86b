package runner

import (
	"os"
	"strconv"
	"strings"
)

// memoryKills is how many processes of the machine the kernel has killed for want of memory since its boot; 0 where it does not count them.
func (c Config) memoryKills() int {
	raw, err := os.ReadFile(c.VMStat)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if name, count, _ := strings.Cut(strings.TrimSpace(line), " "); name == "oom_kill" {
			n, _ := strconv.Atoi(count)
			return n
		}
	}
	return 0
}
