package bot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slack-go/slack"
)

// How calls of Slack's methods go wrong, and what is done about it. A call that Slack asks to repeat later is repeated then. One that may
// have taken effect is repeated only if twice is as good as once; else whoever made it looks first.

// isGone tells errors of Slack after which a thread takes no messages any more.
func isGone(err error) bool {
	return errors.Is(err, errThreadGone) || isCode(err,
		"channel_not_found", "not_in_channel", "is_archived", "thread_not_found", "restricted_action", "cannot_reply_to_message",
	)
}

func isCode(err error, codes ...string) bool {
	e, ok := errors.AsType[slack.SlackErrorResponse](err)
	return ok && slices.Contains(codes, e.Err)
}

// isRefused tells answers by which Slack refuses a message for its form: the same one would be refused again.
func isRefused(err error) bool {
	return isCode(err,
		"invalid_blocks", "invalid_blocks_format", "invalid_attachments", "msg_blocks_too_long", "msg_too_long", "msg_too_large",
		"attachment_payload_limit_exceeded", "too_many_attachments", "block_mismatch", "invalid_arguments", "no_text",
	)
}

// inForm posts or edits a message with its blocks, and with its text alone when Slack refuses that.
func inForm(text string, blocks []slack.Block, do func(form ...slack.MsgOption) error) error {
	if len(blocks) > 0 {
		if err := do(slack.MsgOptionText(text, false), slack.MsgOptionBlocks(blocks...)); !isRefused(err) {
			return err
		}
	}
	return do(slack.MsgOptionText(text, false))
}

// asksToWait tells how long Slack wants to be left alone, if it does. Beside an HTTP status of 200 it does not say how long: 0.
func asksToWait(err error) (time.Duration, bool) {
	if limited, ok := errors.AsType[*slack.RateLimitedError](err); ok {
		return limited.RetryAfter, true
	}
	return 0, isCode(err, "ratelimited", "rate_limited")
}

// isPassing tells trouble of Slack's own, or on the way there: the same call may well succeed later. Whether it took effect is not known.
func isPassing(err error) bool {
	if _, ok := asksToWait(err); ok {
		return true
	}
	if isCode(err, "internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org") {
		return true
	}
	if status, ok := errors.AsType[slack.StatusCodeError](err); ok {
		return status.Code >= http.StatusInternalServerError || status.Code == http.StatusRequestTimeout
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok { // a page of somebody on the way
		return true
	}
	_, onTheWay := errors.AsType[*url.Error](err)
	return onTheWay || errors.Is(err, io.ErrUnexpectedEOF)
}

// method calls one of Slack's methods whose answer the library does not decode wholly. Its errors are the library's.
func (b *Bot) method(ctx context.Context, name string, form url.Values, answer interface{ Err() error }) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cmp.Or(b.cfg.APIURL, slack.APIURL)+name, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer "+b.cfg.BotToken)
	res, err := b.out.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return statusError(res)
	}
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil {
		return err
	}
	return answer.Err()
}

// statusError is the library's error for an answer with another status than 200.
func statusError(res *http.Response) error {
	if res.StatusCode == http.StatusTooManyRequests {
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return &slack.RateLimitedError{RetryAfter: time.Duration(seconds) * time.Second}
	}
	return slack.StatusCodeError{Code: res.StatusCode, Status: res.Status}
}

// patiently repeats a call that Slack asks to repeat later. Nothing else is repeated: it may have taken effect.
func (b *Bot) patiently(ctx context.Context, do func() error) error {
	return b.whileIn(ctx, do, func(err error) bool { _, ok := asksToWait(err); return ok })
}

// insist repeats a call through all trouble that passes, until ctx ends: one of which twice is as good as once.
func (b *Bot) insist(ctx context.Context, do func() error) error {
	return b.whileIn(ctx, do, isPassing)
}

// maxTry bounds the pause between two tries of a call, when Slack does not say how long; it begins with half a second.
const maxTry = 15 * time.Second

// whileIn repeats do while it fails for a reason that is worth it. When ctx ends, the last error is returned.
func (b *Bot) whileIn(ctx context.Context, do func() error, worth func(error) bool) error {
	for pause := b.tryAfter; ; pause = min(pause*2, maxTry) {
		err := do()
		if err == nil || ctx.Err() != nil || !worth(err) {
			return err
		}
		wait := pause
		if after, _ := asksToWait(err); after > 0 {
			wait = max(wait, after+100*time.Millisecond)
		}
		b.log.DebugContext(ctx, "Slack is asked again", "pause", wait, "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// later insists on a call that failed just now, beside all else.
func (b *Bot) later(ctx context.Context, failed error, do func(context.Context) error) {
	b.stubbornly(ctx, func(ctx context.Context) {
		_ = b.insist(ctx, func() error {
			if err := failed; err != nil { // it is waited for as after any other
				failed = nil
				return err
			}
			return do(ctx)
		})
	})
}
