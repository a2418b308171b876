'use strict';
// The page: conversations are kept in this browser, an API key in this tab, and nothing is asked of anyone but the
// server that the page came from.

const $ = (id) => document.getElementById(id);

function make(tag, properties, ...children) {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  node.append(...children);
  return node;
}

function button(text, action, label) {
  const node = make('button', {type: 'button', onclick: action}, text);
  if (label) node.setAttribute('aria-label', label);
  return node;
}

// ---- What is kept -------------------------------------------------------------------------------------------------

const kPrefix = 'quern.conversation.';
const kSampling = ['temperature', 'top_p', 'top_k', 'max_tokens', 'seed'];

function load(key, otherwise) {
  try {
    const text = localStorage.getItem(key);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

// {id, title, system, updated, messages: [{role, content, ends, chances, stats, error}]}; ends and chances: of each
// token of an answer, where in the content it ends and its log-probability.
const conversations = new Map();
const settings = load('quern.settings', {});
let current = null;
let model = null, context = 0;
const runs = new Map();  // of conversations that are being answered

function loadConversations() {
  for (let i = 0; i < localStorage.length; ++i) {
    const key = localStorage.key(i);
    if (!key.startsWith(kPrefix)) continue;
    const found = load(key, null);
    if (found && Array.isArray(found.messages) && !runs.has(found.id)) conversations.set(found.id, found);
  }
}

function save(conversation) {
  if (conversation.messages.length === 0 || conversations.get(conversation.id) !== conversation) return;
  const key = kPrefix + conversation.id;
  if (keep(key, conversation)) return;
  // No room: the text counts, the probabilities do not.
  const messages = conversation.messages.map((message) => ({...message, ends: [], chances: []}));
  if (!keep(key, {...conversation, messages}))
    notify('This browser has no room to keep the conversation; delete others to make some.');
}

function newConversation() {
  return {id: Date.now().toString(36) + Math.random().toString(36).slice(2), title: '', system: '', updated: Date.now(), messages: []};
}

const titleOf = (conversation) => conversation.title || 'New conversation';

// ---- The server ---------------------------------------------------------------------------------------------------

function apiKey() {
  try {
    return sessionStorage.getItem('quern.key');
  } catch {
    return null;
  }
}

function headers() {
  const key = apiKey();
  return {'Content-Type': 'application/json', ...(key ? {Authorization: 'Bearer ' + key} : {})};
}

async function connect() {
  try {
    const reply = await fetch('props', {headers: headers()});
    if (reply.status === 401) {
      askForKey(apiKey() !== null);
      return;
    }
    if (!reply.ok) throw new Error(`the server answers ${reply.status}`);
    const props = await reply.json();
    model = props.model;
    context = props.context;
    $('model').textContent = model;
    $('model').title = `${model}, context ${context}, quern ${props.version}`;
    notify(props.chat ? '' : 'This model has no chat template, so it holds no conversations.');
  } catch (error) {
    notify(`The server cannot be reached (${error.message}).`);
  }
  drawLog();
}

function askForKey(wasWrong) {
  $('key-error').textContent = wasWrong ? 'The server does not know this key.' : '';
  $('key').value = '';
  if (!$('ask-key').open) $('ask-key').showModal();
}

$('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  try {
    sessionStorage.setItem('quern.key', $('key').value);
  } catch {
    notify('This browser keeps nothing for a tab.');
  }
  $('ask-key').close();
  $('prompt').focus();
  connect();
});

// The events of a stream, as {comment} or {data}.
async function* eventsOf(body) {
  const reader = body.getReader(), decoder = new TextDecoder();
  let text = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    text += decoder.decode(value, {stream: true});
    let end;
    while ((end = text.indexOf('\n\n')) >= 0) {
      const event = text.slice(0, end);
      text = text.slice(end + 2);
      if (event.startsWith('data: ')) yield {data: event.slice(6)};
      else if (event.startsWith(': ')) yield {comment: event.slice(2)};
    }
  }
}

async function answer(conversation) {
  const message = {role: 'assistant', content: '', ends: [], chances: [], stats: null};
  const body = {
    model, stream: true, stream_options: {include_usage: true}, reasoning_format: 'none', logprobs: settings.logprobs !== false,
    messages: [...(conversation.system ? [{role: 'system', content: conversation.system}] : []),
               ...conversation.messages.map(({role, content}) => ({role, content}))],
  };
  for (const name of kSampling) if (Number.isFinite(settings[name])) body[name] = settings[name];
  const run = {controller: new AbortController(), message, progress: null, waiting: ''};
  conversation.messages.push(message);
  conversation.updated = Date.now();
  runs.set(conversation.id, run);
  save(conversation);
  if (conversation === current) drawLog();
  drawList();
  drawSend();
  say('The answer is being written.');
  try {
    const reply = await fetch('v1/chat/completions',
        {method: 'POST', headers: headers(), body: JSON.stringify(body), signal: run.controller.signal});
    if (reply.status === 401) askForKey(apiKey() !== null);
    if (!reply.ok) {
      const error = await reply.json().catch(() => null);
      throw new Error((error && error.error && error.error.message) || `the server answers ${reply.status}`);
    }
    const position = parseInt(reply.headers.get('X-Quern-Queue-Position'), 10);
    if (position > 0) run.waiting = `${position} before this one`;
    await read(reply, run, conversation);
  } catch (error) {
    if (error.name !== 'AbortError') message.error = error.message;
    else if (message.stats) message.stats.stopped = true;
    else message.stats = {stopped: true};
  }
  runs.delete(conversation.id);
  conversation.updated = Date.now();
  save(conversation);
  if (conversation === current) {
    drawMessage(conversation, message);
    drawSend();
  }
  drawList();
  if (message.error) say('The answer failed: ' + message.error);
  else say((message.stats && message.stats.stopped ? 'Stopped. ' : 'The answer: ') + message.content);
}

// Takes the stream into the run's message.
async function read(reply, run, conversation) {
  const message = run.message, bytes = new TextDecoder('utf-8', {ignoreBOM: true});
  const stats = {tokens: 0, seconds: 0, seed: reply.headers.get('X-Quern-Seed')};
  message.stats = stats;
  const asked = performance.now();
  let spelled = 0, beginsWithSpace = false, firstToken = 0;
  for await (const {comment, data} of eventsOf(reply.body)) {
    if (comment !== undefined) {
      const progress = /^prompt (\d+)\/(\d+)$/.exec(comment);
      if (progress) {
        run.progress = [Number(progress[1]), Number(progress[2])];
        run.waiting = '';
        stats.prompt = run.progress[1];
      }
      drawSoon(conversation, run);
      continue;
    }
    if (data === '[DONE]') break;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    if (event.usage) stats.tokens = event.usage.completion_tokens;
    if (event.usage && event.usage.prompt_tokens_details) stats.reused = event.usage.prompt_tokens_details.cached_tokens;
    const choice = event.choices[0];
    if (!choice) continue;
    if (choice.finish_reason) stats.reason = choice.finish_reason;
    const text = choice.delta.content || '', tokens = (choice.logprobs && choice.logprobs.content) || [];
    if (!text && tokens.length === 0) continue;
    const now = performance.now();
    if (stats.tokens === 0) {
      firstToken = now;
      stats.promptSeconds = (now - asked) / 1000;
    }
    stats.seconds = (now - firstToken) / 1000;
    stats.tokens += tokens.length || 1;
    for (const token of tokens) {
      const piece = bytes.decode(Uint8Array.from(token.bytes), {stream: true});
      if (spelled === 0) beginsWithSpace = piece.startsWith(' ');
      spelled += piece.length;
      message.ends.push(spelled);
      message.chances.push(Math.round(token.logprob * 1e4) / 1e4);
    }
    // Some vocabularies spell a text's first word with a space that the text does not have.
    if (!message.content && text && beginsWithSpace && !text.startsWith(' ')) {
      message.ends = message.ends.map((end) => end - 1);
      --spelled;
      beginsWithSpace = false;
    }
    message.content += text;
    drawSoon(conversation, run);
  }
}

function stop() {
  const run = current && runs.get(current.id);
  if (run) run.controller.abort();
  return Boolean(run);
}

function send(text) {
  if (!text.trim() || runs.has(current.id)) return;
  if (!conversations.has(current.id)) conversations.set(current.id, current);
  if (!current.title) current.title = text.trim().split('\n')[0].slice(0, 60);
  current.messages.push({role: 'user', content: text});
  answer(current);
  $('scroll').scrollTop = $('scroll').scrollHeight;
}

// ---- Drawing ------------------------------------------------------------------------------------------------------

const notify = (text) => { $('notice').textContent = text; };
const say = (text) => { $('status').textContent = text; };

let frame = 0;
function drawSoon(conversation, run) {
  if (conversation !== current || frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    if (conversation === current && runs.get(conversation.id) === run) drawMessage(conversation, run.message);
  });
}

function drawList() {
  const byTime = [...conversations.values()].sort((a, b) => b.updated - a.updated);
  $('list').replaceChildren(...byTime.map((conversation) => {
    const name = button(titleOf(conversation) + (runs.has(conversation.id) ? ' …' : ''), () => open(conversation));
    name.className = 'name';
    name.title = titleOf(conversation);
    const item = make('li', {}, name);
    if (conversation === current) {
      item.className = 'current';
      name.setAttribute('aria-current', 'true');
    }
    const rename = button('Rename', () => renameIn(item, conversation), 'Rename ' + titleOf(conversation));
    const remove = button('Delete', () => deleteConversation(conversation), 'Delete ' + titleOf(conversation));
    rename.className = remove.className = 'small';
    item.append(rename, remove);
    return item;
  }));
  $('title').textContent = titleOf(current);
  document.title = (current.title ? current.title + ' - ' : '') + 'quern';
}

function renameIn(item, conversation) {
  const field = make('input', {value: titleOf(conversation), maxLength: 200});
  field.setAttribute('aria-label', 'Name of the conversation');
  let done = false;
  const end = (takes) => {
    if (done) return;
    done = true;
    if (takes && field.value.trim()) {
      conversation.title = field.value.trim();
      save(conversation);
    }
    drawList();
    const name = [...$('list').querySelectorAll('.name')].find((node) => node.title === titleOf(conversation));
    if (name) name.focus();
  };
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.isComposing) end(true);
    if (event.key === 'Escape') end(false);
    event.stopPropagation();
  });
  field.addEventListener('blur', () => end(true));
  item.replaceChildren(field);
  field.select();
}

function deleteConversation(conversation) {
  if (!confirm(`Delete "${titleOf(conversation)}"? It is kept nowhere else.`)) return;
  const run = runs.get(conversation.id);
  conversations.delete(conversation.id);
  if (run) run.controller.abort();
  localStorage.removeItem(kPrefix + conversation.id);
  if (conversation === current) open(newConversation());
  else drawList();
  $('new').focus();
}

function open(conversation) {
  current = conversation;
  showSidebar(false);
  drawList();
  drawLog();
  drawSend();
  $('scroll').scrollTop = $('scroll').scrollHeight;
  $('prompt').focus();
}

function drawLog() {
  const log = $('log');
  log.replaceChildren();
  if (current.messages.length === 0) {
    log.append(make('p', {className: 'empty'}, make('strong', {}, model || 'quern'),
                    'Conversations are kept in this browser and go to this server alone.'));
    return;
  }
  for (const message of current.messages) drawMessage(current, message);
}

const nodes = new WeakMap();  // of messages

function drawMessage(conversation, message) {
  const scroll = $('scroll'), follows = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  let parts = nodes.get(message);
  if (!parts || !parts.article.isConnected) {
    const body = make('div', {className: 'body'}), foot = make('div', {className: 'foot'});
    const mine = message.role === 'user';
    const article = make('article', {className: 'message ' + message.role}, make('h2', {}, mine ? 'You' : 'Answer'), body, foot);
    parts = {article, body, foot, view: mine ? null : new MarkdownView(body, copy), footState: ''};
    if (mine) body.textContent = message.content;
    else body.classList.add('markdown');
    nodes.set(message, parts);
    $('log').append(article);
  }
  const run = runs.get(conversation.id), writes = run && run.message === message;
  parts.article.setAttribute('aria-busy', String(Boolean(writes)));
  if (parts.view) {
    if (parts.waiting) parts.waiting.remove();
    parts.waiting = null;
    if (message.content) parts.view.update(message.content, message.ends || []);
    else if (writes) parts.article.insertBefore(parts.waiting = waiting(run), parts.foot);
  }
  drawFoot(conversation, message, parts, writes);
  if (follows) scroll.scrollTop = scroll.scrollHeight;
}

function waiting(run) {
  const node = make('div', {className: 'waiting'});
  if (run.progress && run.progress[0] < run.progress[1]) {
    const [done, total] = run.progress, bar = make('progress', {value: done, max: total});
    bar.setAttribute('aria-label', 'Prompt read');
    node.append(bar, `reading the prompt: ${done} of ${total} tokens`);
  } else {
    node.append(run.waiting ? `waiting: ${run.waiting}` : run.progress ? 'prompt read' : 'waiting for the server');
  }
  return node;
}

// Buttons stay the same nodes while an answer grows, so that the focus stays.
function drawFoot(conversation, message, parts, writes) {
  const busy = runs.has(conversation.id), last = conversation.messages[conversation.messages.length - 1] === message;
  const state = `${busy} ${writes} ${last} ${message.error || ''}`;
  if (state !== parts.footState) {
    parts.footState = state;
    parts.foot.replaceChildren();
    if (message.error) {
      const error = make('div', {className: 'error'}, message.error);
      error.setAttribute('role', 'alert');
      parts.foot.append(error);
    }
    if (!writes && message.content) {
      const copyButton = button('Copy', () => copy(message.content, copyButton), 'Copy the message');
      parts.foot.append(copyButton);
    }
    if (message.role === 'user') parts.foot.append(button('Edit', () => edit(conversation, message), 'Edit the message'));
    if (message.role === 'assistant' && last && !writes)
      parts.foot.append(button(message.error ? 'Try again' : 'Regenerate', () => regenerate(conversation)));
    if (message.role === 'assistant') parts.foot.append(parts.stats = make('span', {className: 'stats'}));
  }
  if (parts.stats) parts.stats.textContent = statsText(message.stats);
}

function statsText(stats) {
  if (!stats) return '';
  const parts = [];
  if (stats.tokens) parts.push(`${stats.tokens} ${stats.tokens === 1 ? 'token' : 'tokens'}`);
  if (stats.tokens > 1 && stats.seconds > 0) parts.push(`${((stats.tokens - 1) / stats.seconds).toFixed(1)} tokens/s`);
  if (stats.prompt && stats.promptSeconds)
    parts.push(`prompt of ${stats.prompt} in ${stats.promptSeconds.toFixed(1)} s` + (stats.reused ? `, ${stats.reused} kept` : ''));
  if (stats.seed) parts.push(`seed ${stats.seed}`);
  if (stats.stopped) parts.push('stopped');
  else if (stats.reason === 'length') parts.push('cut at the limit of tokens');
  return parts.join(' · ');
}

function drawSend() {
  const busy = runs.has(current.id);
  $('send').textContent = busy ? 'Stop' : 'Send';
  $('send').classList.toggle('stop', busy);
  for (const message of current.messages) {
    const parts = nodes.get(message), run = runs.get(current.id);
    if (parts) drawFoot(current, message, parts, Boolean(run && run.message === message));
  }
}

function regenerate(conversation) {
  if (runs.has(conversation.id)) return;
  conversation.messages.pop();
  $('prompt').focus();
  answer(conversation);
}

function edit(conversation, message) {
  const {body, foot, article} = nodes.get(message);
  if (article.querySelector('textarea')) return;
  const field = make('textarea', {value: message.content, rows: Math.min(12, message.content.split('\n').length + 1)});
  field.setAttribute('aria-label', 'Edit the message');
  const close = () => {
    form.remove();
    body.hidden = foot.hidden = false;
  };
  const form = make('form', {}, field, make('div', {className: 'buttons'},
      button('Cancel', close), make('button', {type: 'submit', className: 'primary'}, 'Send anew')));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (!field.value.trim()) return;
    stop();
    conversation.messages.length = conversation.messages.indexOf(message);
    const text = field.value;
    // An answer that was stopped leaves first.
    const again = () => runs.has(conversation.id) ? setTimeout(again, 10) : (drawLog(), send(text));
    again();
    $('prompt').focus();
  });
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      event.stopPropagation();
      close();
    } else {
      sendOnEnter(event, form);
    }
  });
  body.hidden = foot.hidden = true;
  article.append(form);
  field.focus();
}

async function copy(text, from) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // pages that did not come over a secure connection have no clipboard
    const field = make('textarea', {value: text});
    document.body.append(field);
    field.select();
    done = document.execCommand('copy');
    field.remove();
    from.focus();
  }
  const before = from.dataset.text || from.textContent;
  from.dataset.text = before;
  from.textContent = done ? 'Copied' : 'Not copied';
  say(from.textContent);
  setTimeout(() => { from.textContent = before; }, 1500);
}

// ---- Probabilities ------------------------------------------------------------------------------------------------

function messageAt(node) {
  const article = node.closest('.message');
  return current.messages.find((message) => nodes.has(message) && nodes.get(message).article === article);
}

function showChance(token) {
  for (const on of document.querySelectorAll('.token.on')) on.classList.remove('on');
  const message = token && messageAt(token), index = token && Number(token.dataset.index);
  const chance = message && message.chances && message.chances[index];
  $('tip').hidden = chance === undefined || chance === null;
  if ($('tip').hidden) return;
  const text = message.content.slice(index > 0 ? message.ends[index - 1] : 0, message.ends[index]);
  token.classList.add('on');
  $('tip').textContent = `${JSON.stringify(text)}  ${(Math.exp(chance) * 100).toPrecision(3)} %  log ${chance.toFixed(4)}`;
  const box = token.getBoundingClientRect(), tip = $('tip').getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left, innerWidth - tip.width - 8));
  const top = box.top - tip.height - 6;
  $('tip').style.left = left + 'px';
  $('tip').style.top = (top < 8 ? box.bottom + 6 : top) + 'px';
}

$('log').addEventListener('mouseover', (event) => showChance(event.target.closest('.token')));
$('log').addEventListener('mouseleave', () => showChance(null));
$('log').addEventListener('click', (event) => showChance(event.target.closest('.token')));
$('scroll').addEventListener('scroll', () => showChance(null));

// ---- The controls -------------------------------------------------------------------------------------------------

function sendOnEnter(event, form) {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
}

function fitPrompt() {
  const prompt = $('prompt');
  prompt.style.height = 'auto';
  prompt.style.height = prompt.scrollHeight + 2 + 'px';
}

$('prompt').addEventListener('input', fitPrompt);
$('prompt').addEventListener('keydown', (event) => {
  if (runs.has(current.id) && event.key === 'Enter' && !event.shiftKey) event.preventDefault();
  else sendOnEnter(event, $('composer'));
});
$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  if (stop()) return;
  const text = $('prompt').value;
  if (!text.trim()) return;
  $('prompt').value = '';
  fitPrompt();
  send(text);
});

document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || document.querySelector('dialog[open]')) return;
  if (!stop()) showSidebar(false);
});

$('new').addEventListener('click', () => open(newConversation()));

function showSidebar(shows) {
  const was = $('sidebar').classList.contains('open');
  $('sidebar').classList.toggle('open', shows);
  $('veil').hidden = !shows;
  document.querySelector('main').inert = shows;
  $('menu').setAttribute('aria-expanded', String(shows));
  if (shows) $('new').focus();
  else if (was) $('menu').focus();
}
$('menu').addEventListener('click', () => showSidebar(true));
$('veil').addEventListener('click', () => showSidebar(false));

const darkWish = matchMedia('(prefers-color-scheme: dark)');
function drawTheme() {
  const theme = settings.theme || 'system';
  $('theme').value = theme;
  document.documentElement.dataset.theme = theme === 'system' ? (darkWish.matches ? 'dark' : 'light') : theme;
}
darkWish.addEventListener('change', drawTheme);
$('theme').addEventListener('change', () => {
  settings.theme = $('theme').value;
  keep('quern.settings', settings);
  drawTheme();
});

$('settings-open').addEventListener('click', () => {
  $('system').value = current.system;
  for (const name of kSampling) $(name).value = Number.isFinite(settings[name]) ? settings[name] : '';
  $('logprobs').checked = settings.logprobs !== false;
  $('settings').showModal();
});
$('settings').addEventListener('close', () => {
  current.system = $('system').value;
  save(current);
  for (const name of kSampling) {
    const field = $(name);
    settings[name] = field.value !== '' && field.checkValidity() ? field.valueAsNumber : null;
  }
  settings.logprobs = $('logprobs').checked;
  keep('quern.settings', settings);
});

// Another tab has changed a conversation.
addEventListener('storage', (event) => {
  if (!event.key || !event.key.startsWith(kPrefix)) return;
  const id = event.key.slice(kPrefix.length);
  if (runs.has(id)) return;
  const changed = load(event.key, null);
  if (changed) conversations.set(id, changed);
  else conversations.delete(id);
  if (id === current.id && changed) {
    current = changed;
    drawLog();
  }
  drawList();
});
addEventListener('pagehide', () => {
  for (const id of runs.keys()) if (conversations.has(id)) save(conversations.get(id));
});

drawTheme();
loadConversations();
open(newConversation());
connect();
