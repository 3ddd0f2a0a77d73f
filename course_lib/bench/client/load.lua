-- wrk's request bodies, one a line of a file, and its result as JSON. Arguments: file of bodies, number of the first.

local requests, at = {}, 0
local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    tokens, failed, said = 0, 0, ""
    for body in io.lines(args[1]) do
        requests[#requests + 1] = wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
    end
    at = tonumber(args[2]) % #requests
end

function request()
    at = at % #requests + 1
    return requests[at]
end

function response(status, headers, body)
    if status ~= 200 then
        failed = failed + 1
        said = status .. ": " .. body:sub(1, 300)
        return
    end
    local count = body:match('"completion_tokens": ?(%d+)')
    if count then tokens = tokens + tonumber(count) end
end

function done(summary, latency, rates)
    local tokens, failed, said = 0, 0, ""
    for _, thread in ipairs(threads) do
        tokens = tokens + thread:get("tokens")
        failed = failed + thread:get("failed")
        if thread:get("said") ~= "" then said = thread:get("said") end
    end
    local errors = summary.errors
    failed = failed + errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format(
        '\nRESULT {"seconds": %.6f, "requests": %d, "tokens": %d, "failed": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
        summary.duration / 1e6, summary.requests, tokens, failed,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
    if said ~= "" then io.write("SAID " .. said:gsub("%s+", " ") .. "\n") end
end
