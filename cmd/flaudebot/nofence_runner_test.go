//go:build nofence_runner

package main

// unfenced: the runner takes a turn that it has had, and obeys an older owner.
func unfenced() []piece { return []piece{kills("/exec:8")} }
