//go:build nofence || nofence_look

package sessions

// looks is false to show that the tests notice: never build a bot so.
const looks = false
