//go:build !nofence && !nofence_runner

package runner

// fenced says that the runner refuses an older owner, and a turn that it has heard of.
const fenced = true
