# What an application does with Sidekiq. It says `halfway`, waits for a line, and in the end says `passed` and how many jobs.
require "sidekiq/api"
require_relative "sidekiq_jobs"

def until_true(what, seconds = 30)
  ending = Time.now + seconds
  until yield
    raise "waited #{seconds} s in vain: #{what}" if Time.now > ending
    sleep 0.05
  end
end

def same(found, expected)
  raise "#{found.inspect[0, 300]} is not #{expected.inspect[0, 300]}" unless found == expected
end

def list(name)
  Sidekiq.redis { |redis| redis.lrange(name, 0, -1) }
end

until_true("a process has registered") { Sidekiq::ProcessSet.new.size == 1 }

100.times { |number| Note.perform_async("notes", number) }
due = Time.now.to_f + 1
20.times { Now.perform_in(1, "times") }
30.times { |number| Flaky.perform_async(number) }
puts "halfway"
$stdout.flush
$stdin.gets
Sidekiq::Client.push_bulk("class" => Note, "args" => (100...200).map { |number| ["notes", number] })
10.times { |number| Fails.perform_async(number) }

until_true("200 notes") { list("notes").size >= 200 }
same(list("notes").map(&:to_i).sort, (0...200).to_a)
until_true("20 at their time") { list("times").size >= 20 }
same(list("times").size, 20)
raise "too early" if list("times").any? { |time| time.to_f < due - 0.05 }
runs = -> { Sidekiq.redis { |redis| redis.mget((0...30).map { |number| "runs:#{number}" }) } }
2.times do |turn|
  until_true("30 are to be repeated") { Sidekiq::RetrySet.new.size == 30 }
  same(runs.call, [(turn + 1).to_s] * 30)
  Sidekiq::RetrySet.new.to_a.each(&:retry)
end
until_true("30 tried three times") { runs.call == ["3"] * 30 }
until_true("nothing is left") { Sidekiq::RetrySet.new.size == 0 && Sidekiq::ScheduledSet.new.size == 0 }
same(Sidekiq::Queue.all.map(&:name).sort, %w[default low])
same(Sidekiq::Queue.all.sum(&:size), 0)

# The dead ones: found one by one, tried again by hand, and deleted.
until_true("10 are dead") { Sidekiq::DeadSet.new.size == 10 }
Sidekiq::DeadSet.new.first.retry
until_true("it has failed again") { Sidekiq::DeadSet.new.size == 10 }
Sidekiq::DeadSet.new.to_a.first(3).each(&:delete)
same(Sidekiq::DeadSet.new.size, 7)

# Somebody takes back what is not due yet.
later = (0...5).map { |number| Note.perform_in(3600, "never", number) }
same(Sidekiq::ScheduledSet.new.size, 5)
Sidekiq::ScheduledSet.new.find_job(later[2]).delete
same(Sidekiq::ScheduledSet.new.map(&:jid).sort, (later - [later[2]]).sort)
same(list("never"), [])
Sidekiq::ScheduledSet.new.clear

# A process that has been told to take no more (over a list) says so with its heartbeat, every five seconds; and what it counts
# comes with that: runs, those that failed among them.
Sidekiq::ProcessSet.new.first.quiet!
until_true("it is quiet") { Sidekiq::ProcessSet.new.first["quiet"] == "true" }
stats = Sidekiq::Stats.new
same([stats.processed, stats.failed], [200 + 20 + 30 * 3 + 11, 30 * 2 + 11])
same(Sidekiq::Stats::History.new(1).processed.values, [stats.processed])
puts "passed #{200 + 20 + 90 + 11 + 5}"
