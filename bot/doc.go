// Package bot is flaudebot in Slack: it receives over Socket Mode, decides who may do what, turns
// messages into turns, shows their progress and posts their outcomes.
//
// It knows nothing of Fly, Redis or the runner. What it needs of sessions is the interface [Sessions];
// what sessions need of it is [sessions.Front], which [Bot] implements.
package bot
