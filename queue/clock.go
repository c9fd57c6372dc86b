//go:build !nofence && !nofence_clock

package queue

// clocked says that an owner who overslept the lease notices by the own clock.
const clocked = true
