export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-A9SM8TYI.mjs";
