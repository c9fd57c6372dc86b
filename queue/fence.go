//go:build !nofence && !nofence_queue

package queue

// fences returns what all scripts begin with as it is: holds checks the fence.
func fences(common string) string { return common }
