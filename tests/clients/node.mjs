// Runs drive.mjs in Node: node.mjs BASE_URL TOKEN FIFO

import { appendFile } from "node:fs/promises";
import { Lake } from "./client.mjs";
import { drive } from "./drive.mjs";

const [baseUrl, token, fifo] = process.argv.slice(2);
console.log(await drive(new Lake(baseUrl, token), (word) => appendFile(fifo, `${word}\n`)));
