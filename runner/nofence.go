//go:build nofence || nofence_runner

package runner

// fenced is false to show that the tests notice: never build an image so.
const fenced = false
