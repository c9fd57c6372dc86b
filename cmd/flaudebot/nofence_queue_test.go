//go:build nofence_queue

package main

// unfenced: Redis takes what an owner writes whose claim another one has.
func unfenced() []piece { return []piece{pauses("DELETE:8")} }
