"""A name server for one name: name-server.py ADDRESS NAME ITS_ADDRESS

Answers at port 53 of ADDRESS; any other name, and any other type than A, has no records.
"""
import socket
import struct
import sys

address, name, its_address = sys.argv[1:]
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
TYPE_A, CLASS_IN = 1, 1

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 53))
while True:
    query, client = server.recvfrom(512)
    # After the header of twelve bytes comes one question: name, type, class (RFC 1035, 4.1).
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    is_known = question == labels + struct.pack(">HH", TYPE_A, CLASS_IN)
    # The name as a pointer to the question's name, and a record with a TTL of 0.
    record = struct.pack(">HHHLH4s", 0xC00C, TYPE_A, CLASS_IN, 0, 4, socket.inet_aton(its_address)) if is_known else b""
    server.sendto(query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_known), 0, 0) + question + record, client)
