//go:build nofence_clock

package main

// unfenced: who overslept a lease goes on until somebody says so. Machines have a fence of their own; Slack has none. Of its requests one in
// thirty or so hurts.
func unfenced() []piece {
	all := pauses("/api/:100")
	return []piece{all, all, all}
}
