//go:build nofence || nofence_queue

package queue

// fences takes the fence out of what all scripts begin with, to show that the tests notice: never build a bot so.
func fences(common string) string { return common + "holds = function() return 'OK' end\n" }
