// Package runner is what runs inside of a session machine: process 1, and the verbs that the bot execs beside it.
//
// The bot hands a turn over with take; the runner clones the repositories once, runs Claude Code as a user of its
// own, keeps a journal of what happens on the volume, and answers events and result until the outcome is
// acknowledged. A turn id never runs twice, whatever is repeated: the journal on the volume knows it.
//
// When a turn has ended or was stopped, nothing that it started is left, commands in sessions of their own included. That
// needs Linux; on other systems the runner reaches Claude Code's process group, and what left it goes on.
//
// Secrets stay in this process's memory. Claude Code reaches the API through a gateway here that adds the
// credential, and Git asks a credential helper. The wire types are in wire.go; nothing here knows of Slack or Fly.
package runner
