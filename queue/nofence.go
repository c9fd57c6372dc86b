//go:build nofence || nofence_queue

package queue

import "strings"

// fences takes the fence out of what all scripts begin with, to show that the tests notice: never build a bot so.
func fences(common string) string {
	return strings.Replace(common, "local function holds(key, id, fence)\n", "local function holds(key, id, fence)\n  do return 'OK' end\n", 1)
}
