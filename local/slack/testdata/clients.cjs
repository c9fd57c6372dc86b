// Runs Slack's own Node libraries, unchanged but for the address, against the local Slack: node clients.cjs ADDRESS.
// It prints one line for each thing that worked, and ends with 1 at the first that did not.
'use strict';
const assert = require('node:assert/strict');
const { WebClient, ErrorCode } = require('@slack/web-api');
const { SocketModeClient } = require('@slack/socket-mode');
const { App } = require('@slack/bolt');

const slackApiUrl = process.argv[2] + '/api/';
const quiet = { logLevel: 'error' };
const bot = new WebClient('xoxb-local', { slackApiUrl, ...quiet });
const member = new WebClient('xoxp-local-member', { slackApiUrl, ...quiet });

const channel = 'C0GENERAL';
const done = (what) => console.log('ok ' + what);
const once = (emitter, name, want = () => true) => new Promise((resolve) => {
  const listen = (args) => { if (want(args)) { emitter.off(name, listen); resolve(args); } };
  emitter.on(name, listen);
});
async function local(verb, body) {
  const res = await fetch(process.argv[2] + '/local/' + verb, {
    method: 'POST', body: JSON.stringify(body), headers: { Authorization: 'Bearer xoxp-local-member' },
  });
  return res.json();
}

async function webAPI() {
  assert.equal((await bot.auth.test()).user_id, 'U0FLAUDE');
  const blocks = [
    { type: 'section', text: { type: 'mrkdwn', text: '*hello*' } },
    { type: 'actions', elements: [{ type: 'button', action_id: 'stop', value: '1', text: { type: 'plain_text', text: 'Stop' } }] },
  ];
  const metadata = { event_type: 'flaudebot_turn', event_payload: { turn: '1' } };
  const posted = await bot.chat.postMessage({ channel, text: 'hello', blocks, metadata });
  await bot.chat.update({ channel, ts: posted.ts, text: 'hello again', blocks });
  for (let i = 0; i < 4; i++) await bot.chat.postMessage({ channel, thread_ts: posted.ts, text: 'reply ' + i });
  const replies = await bot.conversations.replies({ channel, ts: posted.ts, include_all_metadata: true });
  assert.deepEqual(replies.messages[0].metadata, metadata);
  assert.equal(replies.messages.length, 5);
  done('web-api: post, update, replies, metadata');

  let pages = 0, texts = [];
  for await (const page of bot.paginate('conversations.replies', { channel, ts: posted.ts, limit: 2 })) {
    pages++;
    texts.push(...page.messages.map((m) => m.text));
  }
  assert.equal(pages, 3);
  assert.deepEqual(texts, ['hello again', 'reply 0', 'reply 1', 'reply 2', 'reply 3']);
  done('web-api: pages');

  await assert.rejects(bot.chat.postMessage({ channel: 'C9', text: 'x' }), (e) => e.code === ErrorCode.PlatformError && e.data.error === 'channel_not_found');
  await assert.rejects(bot.chat.postMessage({ channel, text: 'x', blocks: [{ type: 'header', text: { type: 'mrkdwn', text: 'x' } }] }),
    (e) => e.data.error === 'invalid_blocks' && /json-pointer:\/blocks\/0\/text\/type/.test(e.data.response_metadata.messages[0]));
  done('web-api: errors');

  await local('faults', { method: 'chat.postMessage', nth: 1, status: 429 });
  const retried = once(bot, 'rate_limited');
  assert.equal((await bot.chat.postMessage({ channel, text: 'patience' })).ok, true);
  assert.equal(await retried, 1);
  done('web-api: waits for Retry-After');

  await bot.reactions.add({ channel, timestamp: posted.ts, name: 'eyes' });
  await bot.filesUploadV2({ channel_id: channel, thread_ts: posted.ts, filename: 'a.md', content: '# all of it', initial_comment: 'the rest' });
  const last = (await bot.conversations.replies({ channel, ts: posted.ts })).messages.at(-1);
  assert.equal(last.files[0].name, 'a.md');
  const file = await fetch(last.files[0].url_private_download, { headers: { Authorization: 'Bearer xoxb-local' } });
  assert.equal(await file.text(), '# all of it');
  done('web-api: upload and download');
  return posted.ts;
}

async function socketMode(ts) {
  const client = new SocketModeClient({ appToken: 'xapp-local', clientOptions: { slackApiUrl }, ...quiet });
  const connected = once(client, 'connected');
  await client.start();
  await connected;
  client.on('slack_event', async ({ ack, type }) => { if (type === 'events_api') await ack(); });

  const message = once(client, 'message', ({ event }) => event.text === '<@U0FLAUDE> hi');
  const mention = once(client, 'app_mention');
  const sent = await member.chat.postMessage({ channel, text: '<@U0FLAUDE> hi' });
  assert.equal((await message).event.ts, sent.ts);
  assert.equal((await mention).event.user, 'U0MEMBER');
  done('socket-mode: message and app_mention');

  client.once('slash_commands', ({ ack, body }) => ack({ text: 'you said ' + body.text }));
  const answer = await local('command', { channel, command: '/flaude', text: 'list' });
  assert.equal(answer.response.text, 'you said list');
  done('socket-mode: a slash command is answered with its ack');

  const pressed = once(client, 'interactive');
  const click = local('click', { channel, ts, action_id: 'stop' });
  const { ack, body } = await pressed;
  assert.equal(body.actions[0].value, '1');
  await ack();
  assert.equal((await click).ok, true);
  const answered = await fetch(body.response_url, { method: 'POST', body: JSON.stringify({ text: 'stopping' }) });
  assert.equal(await answered.text(), 'ok');
  done('socket-mode: a click');

  const again = once(client, 'connected');
  await local('socket', { close: 'refresh' });
  await again;
  const after = once(client, 'message', ({ event }) => event.text === 'after the refresh');
  await member.chat.postMessage({ channel, text: 'after the refresh' });
  await after;
  done('socket-mode: a refresh');
  await client.disconnect();
}

async function bolt() {
  const app = new App({ token: 'xoxb-local', appToken: 'xapp-local', socketMode: true, clientOptions: { slackApiUrl }, ...quiet });
  app.event('app_mention', async ({ event, say }) => { await say({ text: 'I am here', thread_ts: event.ts }); });
  app.shortcut('manage_session', async ({ ack, shortcut, client }) => {
    await ack();
    await client.views.open({
      trigger_id: shortcut.trigger_id,
      view: {
        type: 'modal', callback_id: 'manage', title: { type: 'plain_text', text: 'Manage' }, submit: { type: 'plain_text', text: 'Send' },
        blocks: [{ type: 'input', block_id: 'why', label: { type: 'plain_text', text: 'Why?' }, element: { type: 'plain_text_input', action_id: 'a' } }],
      },
    });
  });
  const submitted = new Promise((resolve) => {
    app.view('manage', async ({ ack, view }) => { await ack(); resolve(view.state.values.why.a.value); });
  });
  await app.start();
  const { ts } = await member.chat.postMessage({ channel, text: '<@U0FLAUDE> are you there?' });
  const until = Date.now() + 10000;
  for (;;) {
    const { messages } = await member.conversations.replies({ channel, ts });
    if (messages.at(-1).text === 'I am here') break;
    assert(Date.now() < until, 'bolt never answers');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  done('bolt: answers a mention');
  assert.equal((await local('shortcut', { channel, ts, callback_id: 'manage_session' })).ok, true);
  let view;
  while (!view) {
    assert(Date.now() < until, 'bolt opens no modal');
    view = (await local('seen', { channel })).views[0];
    if (!view) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal((await local('submit', { view_id: view.id, values: { why: { a: { type: 'plain_text_input', value: 'because' } } } })).ok, true);
  assert.equal(await submitted, 'because');
  done('bolt: a shortcut opens a modal that is sent');
  await app.stop();
}

webAPI().then(socketMode).then(bolt).then(() => { done('all'); process.exit(0); }, (e) => { console.error(e); process.exit(1); });
