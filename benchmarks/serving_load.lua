-- wrk's script: the lines of the file BODIES as JSON bodies, one after the other; figures as JSON.
local bodies, index = {}, 0

function init()
  for line in io.lines(os.getenv("BODIES")) do
    bodies[#bodies + 1] =
      wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, line)
  end
end

function request()
  index = index % #bodies + 1
  return bodies[index]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "failures": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
