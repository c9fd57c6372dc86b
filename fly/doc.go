// Package fly is a client for the Fly Machines API: apps, volumes, machines, leases, exec, logs.
//
// Requests that are safe to repeat are repeated on 429, 408, 5xx and network errors, within the caller's
// context; all others are repeated only on 429, which never took effect. Retry-After is kept, up to a minute.
// Fly's rate limits are kept on this side. Every failure is an [*Error] with Fly's request id, and matches one
// of the sentinels with errors.Is.
//
// The package knows nothing of sessions or Slack.
package fly
