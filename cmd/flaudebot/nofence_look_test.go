//go:build nofence_look

package main

// unfenced: what stands in the thread is not looked for before it is posted.
func unfenced() []piece { return []piece{kills("chat.postMessage:8")} }
