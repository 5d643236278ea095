-- Managed by Ansible (role llmops.vllm.llm_balancer). Least connections over the view that the agent sends.
--
-- In-flight counts stand in a shared dictionary. Each worker writes its own row, as absolute values, so nothing can leak:
-- rows of dead workers are removed, and the totals that choices read are summed up from the rows again every second.
local cjson, bal, ffi = require "cjson.safe", require "ngx.balancer", require "ffi"
ffi.cdef [[int kill(int pid, int sig);]]

local d, M = ngx.shared.llm_lb, {}
local SLOTS = 512 -- rows: workers, the old ones of reloads included
local SUSPECT_SECONDS = 1 -- a replica that has just failed is chosen last
local LEAST_SHARE = 0.1 -- of its weight, that a replica gets at the begin of its slow start
local STATES = { up = true, down = true, drain = true }

local slot, own = nil, {} -- this worker's row
local view, view_version = { peers = {}, pools = {} }, -1

-- A list as JSON: an empty table would become an object.
local function list(values)
  return #values > 0 and cjson.encode(values) or "[]"
end

-- The view, decoded once per version and worker; peers by pool.
local function current()
  local version = d:get("version") or 0
  if version ~= view_version then
    local found = cjson.decode(d:get("view") or "") or { peers = {} }
    found.pools = {}
    for _, p in ipairs(found.peers) do
      found.pools[p.pool] = found.pools[p.pool] or {}
      table.insert(found.pools[p.pool], p)
    end
    view, view_version = found, version
  end
  return view
end

local function rows()
  local found = {}
  for s = 1, SLOTS do
    if d:get("w" .. s) then found[#found + 1] = s end
  end
  return found
end

-- Replicas that left the view while requests to them were in flight.
local function gone()
  local found = cjson.decode(d:get("gone") or "[]")
  return type(found) == "table" and found or {}
end

local function inflight(id)
  return math.max(0, d:get("t:" .. id) or 0)
end

local function add(id, x)
  own[id] = math.max(0, (own[id] or 0) + x)
  d:set("c" .. slot .. ":" .. id, own[id])
  d:incr("t:" .. id, x, 0)
end

local function sum(id, all)
  local n = 0
  for _, s in ipairs(all) do n = n + (d:get("c" .. s .. ":" .. id) or 0) end
  return n
end

-- Once a second in one of the workers: rows of dead workers go, totals become what the rows say.
local function mend(premature)
  if premature or not d:add("mending", true, 0.9) then return end
  local ids = gone()
  for _, p in ipairs(current().peers) do ids[#ids + 1] = p.id end
  for s = 1, SLOTS do
    local pid = d:get("w" .. s)
    if pid and ffi.C.kill(pid, 0) ~= 0 and ffi.errno() == 3 then -- ESRCH: the worker is gone
      for _, id in ipairs(ids) do d:delete("c" .. s .. ":" .. id) end
      d:delete("w" .. s)
      d:incr("reaped", 1, 0)
    end
  end
  local all = rows()
  for _, id in ipairs(ids) do d:set("t:" .. id, sum(id, all)) end
end

-- A document is taken as a whole or not at all; returns what is wrong with it.
local function problem(found)
  if type(found) ~= "table" or type(found.id) ~= "string" or type(found.peers) ~= "table" then
    return "id and peers are needed"
  end
  for _, name in ipairs { "slow_start", "retry_percent", "retry_burst" } do
    if type(found[name]) ~= "number" or found[name] < 0 then return name .. " must be a number, 0 or more" end
  end
  for i, p in ipairs(found.peers) do
    local where = "peers[" .. i .. "]: "
    if type(p) ~= "table" then return where .. "no object" end
    for _, name in ipairs { "id", "pool", "address" } do
      if type(p[name]) ~= "string" or p[name] == "" then return where .. name .. " must be a text" end
    end
    if not (p.address:match("^%d+%.%d+%.%d+%.%d+$") or p.address:match("^[%x:.]*:[%x:.]*$")) then
      return where .. "address must be an IP address"
    end
    if type(p.port) ~= "number" or p.port < 1 or p.port > 65535 then return where .. "port must be 1 to 65535" end
    if not STATES[p.state] then return where .. "state must be up, down or drain" end
    if type(p.weight) ~= "number" or not (p.weight > 0 and p.weight <= 1) then
      return where .. "weight must be above 0, up to 1"
    end
    if type(p.since) ~= "number" then return where .. "since must be a number" end
  end
end

local function put(text, found)
  local still = {}
  for _, p in ipairs(found.peers) do still[p.id] = true end
  local left, ids = {}, gone()
  for _, p in ipairs(current().peers) do ids[#ids + 1] = p.id end
  for _, id in ipairs(ids) do
    if not still[id] and inflight(id) > 0 then left[#left + 1] = id end
    still[id] = true -- named once
  end
  d:set("gone", list(left))
  d:set("view", text)
  d:incr("version", 1, 0)
end

-- Master: a reload keeps the dictionary, a start reads the last view from disk. What cannot be read is an empty view.
function M.init(path)
  if d:get("boot") then return end
  d:set("boot", ngx.now())
  local file = io.open(path, "r")
  local text = file and file:read("*a")
  if file then file:close() end
  local found = text and cjson.decode(text)
  local wrong = text and problem(found)
  if text and not wrong then put(text, found) end
  if wrong then ngx.log(ngx.ERR, "llm: ", path, ": ", wrong, ": begin without replicas until the agent sends them") end
end

function M.init_worker()
  math.randomseed(ngx.worker.pid() + ngx.now() * 1000)
  for s = 1, SLOTS do
    if d:add("w" .. s, ngx.worker.pid()) then
      slot = s
      break
    end
  end
  assert(slot, "llm: no free row for this worker")
  ngx.timer.every(1, mend)
end

local function failed(id)
  d:incr("failed:" .. id, 1, 0)
  d:incr("row:" .. id, 1, 0)
  d:set("suspect:" .. id, true, SUSPECT_SECONDS)
end

local function weight(p, seconds)
  local share = seconds > 0 and (ngx.now() - p.since) / seconds or 1
  return p.weight * math.min(1, math.max(LEAST_SHARE, share))
end

-- The peer with the fewest requests for its weight, ties at random.
local function least(peers, tried, state, suspects, seconds)
  local best, least_load, offset = nil, nil, math.random(#peers)
  for k = 1, #peers do
    local p = peers[(k + offset) % #peers + 1]
    if p.state == state and not tried[p.id] and (suspects or not d:get("suspect:" .. p.id)) then
      local load = (inflight(p.id) + 1) / weight(p, seconds)
      if not best or load < least_load then best, least_load = p, load end
    end
  end
  return best
end

local function usable(peers)
  local up, down = 0, 0
  for _, p in ipairs(peers) do
    if p.state == "up" then up = up + 1 elseif p.state == "down" then down = down + 1 end
  end
  return up > 0 and "up" or "down", up > 0 and up or down
end

-- Access phase: in the balancer phase the answer would be 500.
function M.admit()
  local peers = current().pools[ngx.var.llm_pool]
  if not peers then return ngx.exit(503) end
  local _, count = usable(peers)
  if count == 0 then return ngx.exit(503) end
end

-- Where no replica is up, those that are down are tried: the agent may be wrong, an answer of 503 is certain.
function M.balance()
  local now, ctx, pool = current(), ngx.ctx, ngx.var.llm_pool
  local peers, budget = now.pools[pool] or {}, "budget:" .. pool
  if #peers == 0 then return ngx.exit(ngx.ERROR) end
  local state, count = usable(peers)
  local tried = ctx.llm_tried
  if tried then
    failed(ngx.var.llm_peer)
    M.release()
    d:incr(budget, -1, now.retry_burst)
  else
    tried = {}
    ctx.llm_tried = tried
    local left = d:incr(budget, now.retry_percent / 100, now.retry_burst)
    if left and left > now.retry_burst then
      left = now.retry_burst
      d:set(budget, left)
    end
    -- as many as there are others; proxy_next_upstream_tries is the limit
    if left and left >= 1 and count > 1 then bal.set_more_tries(count - 1) end
  end
  local p = least(peers, tried, state, false, now.slow_start) or least(peers, tried, state, true, now.slow_start)
    or least(peers, {}, state, true, now.slow_start)
  if not p then return ngx.exit(ngx.ERROR) end
  tried[p.id] = true
  ngx.var.llm_peer = p.id
  add(p.id, 1)
  local ok, err = bal.set_current_peer(p.address, p.port)
  if not ok then
    ngx.log(ngx.ERR, "llm: ", p.id, ": ", err)
    return ngx.exit(ngx.ERROR)
  end
end

-- One request less at its replica.
function M.release()
  local id = ngx.var.llm_peer
  if id ~= "" then
    add(id, -1)
    ngx.var.llm_peer = ""
  end
end

-- Log phase at server level: also runs after error_page, which drops ngx.ctx.
function M.log()
  local id = ngx.var.llm_peer
  if id == "" then return end
  local status = tonumber((ngx.var.upstream_status or ""):match("(%d+)%s*$"))
  local whole = ngx.var.request_completion == "OK"
  if status and status >= 500 and status ~= 503 then
    failed(id)
  elseif status and status < 500 then
    local stream = (ngx.var.sent_http_content_type or ""):find("event-stream", 1, true)
    local cut = whole and stream and ngx.var.llm_end == "" -- the replica broke off in the middle
    if cut then failed(id) else
      d:incr("good:" .. id, 1, 0)
      d:set("row:" .. id, 0)
    end
  end
  M.release()
end

-- Body filter: how the answer ended: done | error (an event within 200) | eof | "" (broken off).
function M.watch_end()
  local v = ngx.var.llm_end
  if v ~= "" then return end
  local c = ngx.arg[1]
  if c ~= "" and c:find('data: {"error"', 1, true) then
    ngx.var.llm_end = "error"
  elseif c ~= "" and c:find("data: [DONE]", 1, true) then
    ngx.var.llm_end = "done"
  elseif ngx.arg[2] then
    ngx.var.llm_end = "eof"
  end
end

local function told(id)
  return {
    id = id,
    inflight = inflight(id),
    good = d:get("good:" .. id) or 0,
    failed = d:get("failed:" .. id) or 0,
    failed_in_row = d:get("row:" .. id) or 0,
  }
end

-- GET: the view in force and the counts; PUT: the whole view.
function M.admin()
  ngx.header["Content-Type"] = "application/json"
  if ngx.req.get_method() == "PUT" then
    ngx.req.read_body()
    local text = ngx.req.get_body_data()
    local found = text and cjson.decode(text)
    local wrong = problem(found)
    if wrong then
      ngx.status = 400
      return ngx.say(cjson.encode { error = { message = wrong } })
    end
    put(text, found)
  end
  local peers = {}
  for i, p in ipairs(current().peers) do peers[i] = told(p.id) end
  for _, id in ipairs(gone()) do
    if inflight(id) > 0 then peers[#peers + 1] = told(id) end
  end
  local head = { view = current().id or "", boot = d:get("boot"), rows = #rows(), reaped = d:get("reaped") or 0 }
  ngx.say(cjson.encode(head):sub(1, -2), ',"peers":', list(peers), "}")
end

-- For this host alone: that the engine lives, with which configuration and view.
function M.health(config)
  ngx.header["Content-Type"] = "application/json"
  ngx.say(cjson.encode { status = "ok", config = config, view = current().id or "" })
end

return M
