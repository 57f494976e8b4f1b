#!/usr/bin/perl
# Called as: oldest-process.pl select, with JSON on standard input; answers with JSON.
use strict;
use warnings;
use JSON::PP;

my $told = decode_json(join '', <STDIN>);
die "no such verb\n" unless ($ARGV[0] // '') eq 'select';
my ($program, $count) = @{ $told->{parameters} }{qw(program count)};

# The time at which a process began is the 20th field behind the name, which may hold anything.
sub began {
    open my $file, '<', "/proc/$_[0]/stat" or return undef;    # it has ended meanwhile
    my ($name, $rest) = <$file> =~ /^\d+ \((.*)\) (.*)/s or return undef;
    return $name eq $program ? (split ' ', $rest)[19] : undef;
}

my %began;
for my $pid (map { m{^/proc/(\d+)$} } glob '/proc/[0-9]*') {
    my $at = began($pid);
    $began{$pid} = $at if defined $at;
}
my @found = sort { $began{$a} <=> $began{$b} || $a <=> $b } keys %began;
my @hit   = splice @found, 0, $count;
print encode_json({
    targets => [ map { { pid => int $_ } } @hit ],
    rest    => [ map { { pid => int $_ } } @found ],
    text    => scalar(@hit) . " of $program",
});
