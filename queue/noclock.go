//go:build nofence || nofence_clock

package queue

// clocked is false to show that the tests notice: never build a bot so.
const clocked = false
