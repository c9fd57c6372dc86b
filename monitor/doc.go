// Package monitor tells how a replica is doing: whether it lives, whether it is ready, and Prometheus metrics.
//
// It is told what happens by the rooms' own observers ([sessions.Observer], [fly.Config], [bot.Config]), and looks at what they know of themselves.
// None of them knows it. A probe makes no call to anybody; a scrape makes two to Redis.
package monitor
