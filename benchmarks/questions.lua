-- Load for wrk with one question again and again, or ever new ones:
-- `wrk … -- iris|slow same|new FIRST [checked]`, FIRST being the number of the first new one.
-- Requests are written before the load begins, so that the generator takes as little of the CPUs as it can, and one
-- question again and again takes as much of them as ever new ones. With `checked`, an answer is right when it is the one that its own id asked for; else its status
-- alone is looked at. Prints one line of JSON for benchmarks/wrk.py.

local FLOWERS = { [0] = { 5.1, 3.5, 1.4, 0.2 }, { 6.0, 2.9, 4.5, 1.5 }, { 6.3, 3.3, 6.0, 2.5 } }
local IRIS = '{"id":"%d","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%.7f,%.1f,%.1f,%.1f]}]}'
local SLOW = '{"id":"%d","inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[%d]}]}'
local NEW = 30000 -- then from the beginning: many more than the cache of the benchmark has room for

local requests, threads = {}, {}
local right = {} -- bodies seen and found right
local last
wrong = 0 -- global, because thread:get reads globals

function setup(thread)
  table.insert(threads, thread)
end

local function question(number)
  if model == "slow" then
    return SLOW:format(number, number)
  end
  local flower = FLOWERS[number % 3]
  return IRIS:format(number % 3, flower[1] + number * 1e-6, flower[2], flower[3], flower[4])
end

local function is_right(body)
  local id = tonumber(body:match('"id"%s*:%s*"(%d+)"'))
  if model == "slow" then
    return id ~= nil and id * 2 == tonumber(body:match('"data"%s*:%s*%[%s*(%d+)'))
  end
  local _, name_ends = body:find('"label"', 1, true)
  local label = name_ends and body:match('"data"%s*:%s*%[%s*(%d)%s*%]', name_ends)
  return id ~= nil and id == tonumber(label)
end

local function check(status, _, body)
  if status == 200 and right[body] then
    return
  end
  if status == 200 and is_right(body) then
    right[body] = true
  else
    wrong = wrong + 1
  end
end

local function next_request()
  last = (last + 1) % NEW
  return requests[last]
end

function init(arguments)
  model, last = arguments[1], tonumber(arguments[3])
  wrk.method, wrk.headers["Content-Type"], wrk.body = "POST", "application/json", question(0)
  for number = 0, NEW - 1 do
    requests[number] = wrk.format(nil, nil, nil, question(arguments[2] == "new" and number or 0))
  end
  request = next_request
  response = arguments[4] == "checked" and check or nil
end

local LINE = '{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"errors":%d,"wrong":%d}\n'

function done(summary, latency)
  local counted = 0
  for _, thread in ipairs(threads) do
    counted = counted + thread:get("wrong")
  end
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  io.write(LINE:format(summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, failed, counted))
end
